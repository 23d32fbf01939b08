"""Models hear what people think of the masks that they have made, in the background."""

from RefSegLib.jobs import Job
from RefSegSlicerLib import provenance

from InteractiveLearningSlicerLib.cases import inThread


class Reviews:
    """openService: gives the service of the settings (connection.open_service); say(sentence): hears why a model was
    taken back, or that it could not be told."""

    def __init__(self, openService, say):
        self._openService, self._say, self._jobs = openService, say, []

    @property
    def busy(self):
        """Whether a model is being told."""
        return bool(self._jobs)

    def tell(self, segmentations, accepted):
        """Tell the models that made the masks in these segmentation nodes, if any did, what became of them."""
        made = [provenance.stamped(node) for node in segmentations]
        versions = {(done.get("model"), done.get("version")) for done in made if done}
        versions = sorted((str(model), str(version)) for model, version in versions if model and version)
        if not versions:
            return
        service = self._openService()

        def work(progress):
            try:
                client = service.client(progress)
                return [client.review(model, version, accepted) for model, version in versions]
            finally:
                service.leave()

        job = Job(inThread(work))

        def over(reviews=(), error=None):
            self._jobs.remove(job)
            told = [review["reason"] for review in reviews if review.get("rolled_back")]
            for sentence in [str(error)] if error is not None else told:
                self._say(sentence)

        job.finished.connect(over)
        job.failed.connect(lambda error: over(error=error))
        self._jobs.append(job)

    def poll(self):
        """Deliver what has happened, in the main thread."""
        for job in tuple(self._jobs):
            job.poll()

    def close(self):
        """Wait for no answer."""
        for job in self._jobs:
            job.cancel()
        self._jobs.clear()
