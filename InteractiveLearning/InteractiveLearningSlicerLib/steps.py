"""Where in its history a session stands, and which masks it has had there."""

import hashlib

import numpy as np


class Steps:
    """Undo and redo of a session that remember the mask of every step.

    So the session can follow when the Segment Editor's own undo or redo brings back a mask that it has had.
    """

    def __init__(self, session):
        self._session, self._at = session, 0
        self._digests = [self._now()]  # of a session that goes on after a crash, earlier ones are found while undoing

    def done(self):
        """Something was said; what had been taken back is gone."""
        del self._digests[self._at + 1 :]
        self._digests.append(self._now())
        self._at += 1

    def undo(self):
        """Take the last step back. Raises BadInput if there is none."""
        self._session.undo()
        if self._at == 0:
            self._digests.insert(0, self._now())
        else:
            self._at -= 1

    def redo(self):
        """Bring the step back that was taken back last. Raises BadInput if there is none."""
        self._session.redo()
        self._at += 1
        if self._at == len(self._digests):
            self._digests.append(self._now())

    def find(self, mask):
        """Go to the nearest step that has a mask (k, j, i); True if there is one."""
        wanted = digest(mask)
        places = [at for at, known in enumerate(self._digests) if known == wanted]
        if not places:
            return False
        place = min(places, key=lambda at: abs(at - self._at))
        while self._at > place:
            self.undo()
        while self._at < place:
            self.redo()
        return True

    @property
    def mask(self):
        """The digest of the mask as it is now, as text."""
        return self._digests[self._at].hex()

    def _now(self):
        return digest(self._session.labels().array)


def digest(mask):
    """A name (bytes) for a mask; other masks have others."""
    return hashlib.blake2b(np.ascontiguousarray(mask), digest_size=16).digest()
