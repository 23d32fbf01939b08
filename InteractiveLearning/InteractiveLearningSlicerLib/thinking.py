"""What the session works on: asked after often, and shown with a bar and a Cancel button if it takes long."""

import time

# Whoever has clicked waits for every one of these.
LOOK_MILLISECONDS = 10
# What is over sooner needs no progress bar.
PATIENCE_SECONDS = 0.5


class Thinking:
    """ui: widgets by name; turns: of turns.py; timer(milliseconds, action): makes one; over(): nothing is worked on
    any more."""

    def __init__(self, ui, turns, timer, over):
        self.ui, self._turns, self._over, self._since = ui, turns, over, 0.0
        self._timer = timer(LOOK_MILLISECONDS, self._look)
        turns.began.connect(self._begin)
        self._show(False)

    def close(self):
        """Ask no more."""
        self._timer.stop()
        self._timer.deleteLater()  # else it and what it calls would keep each other for ever
        self._timer = None

    def _begin(self):
        if self._timer is not None and not self._timer.active:
            self._since = time.monotonic()
            self._timer.start()

    def _look(self):
        self._turns.poll()
        if not self._turns.busy:
            self._timer.stop()
            self._show(False)
            self._over()
        elif time.monotonic() - self._since > PATIENCE_SECONDS:
            self._show(True)
            fraction, sentence = self._turns.told
            self.ui.progressBar.maximum = 100 if fraction else 0  # with 0 it moves, and does not say how far
            self.ui.progressBar.value = round(100 * fraction)
            if sentence:
                self.ui.statusLabel.text = sentence

    def _show(self, shown):
        self.ui.progressBar.visible = self.ui.cancelButton.visible = shown
