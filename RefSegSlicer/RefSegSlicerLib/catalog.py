"""The models that can be chosen, as last known: read in the background, told in the main thread."""

from RefSegLib.jobs import Job, Signal


class Catalog:
    """The models of a service (see connection.open_service). Main thread only; somebody has to call `poll`.

    models: as last known, by name; broken: a sentence on each model that is there and cannot be used. changed() after
    they were read and are not what they were; failed(error) if they could not be read: what was known stays.
    """

    def __init__(self, service):
        self.service, self.models, self.broken = service, (), ()
        self.changed, self.failed = Signal(), Signal()
        self._known = self._job = None
        self._again = False

    @property
    def refreshing(self):
        """Whether they are being read just now."""
        return self._job is not None

    def find(self, name):
        """The model of that name, None if none is known."""
        return next((model for model in self.models if model.name == name), None)

    def refresh(self):
        """Begin to read them; once more after what is being read now, which may have begun before they changed."""
        self._again = self._job is not None
        if self._again:
            return
        job = self._job = Job(lambda report, cancelled: _read(self.service, cancelled))
        job.finished.connect(lambda listing: self._told(job, listing))
        job.failed.connect(lambda error: self._told(job, None, error))

    def poll(self):
        """Tell what has been read."""
        if self._job is not None:
            self._job.poll()

    def wait(self):
        """For scripts: until they have been read, and told."""
        while self._job is not None:
            self._job.wait()

    def close(self):
        """Tell nothing more, and read no further."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()

    def _told(self, job, listing, error=None):
        if job is not self._job:  # closed
            return
        self._job = None
        if self._again:
            self.refresh()
        if error is not None:
            self.failed(error)
        elif listing != self._known:
            self._known, self.models, self.broken = listing, listing.models, listing.broken
            self.changed()


def _read(service, cancelled):
    """The listing of a service: of the store of this computer from the disk, so that nothing needs to run."""
    from InteractiveLearningLib.listing import list_models
    from InteractiveLearningLib.service.remote import aside
    from RefSegLib.models.store import ModelStore
    from RefSegLib.progress import Progress

    progress = Progress(cancelled=cancelled)
    if service.home is not None:
        return list_models(ModelStore(service.home), progress)
    return aside(lambda: service.client(progress).listing(), cancelled)
