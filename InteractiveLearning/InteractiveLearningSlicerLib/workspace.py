"""What Interactive Learning does: sessions at the desk of a service, its models, and what it learns from them."""

from RefSegLib.errors import BadInput
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib.session_logic import SessionLogic


class Workspace(SessionLogic):
    """See SessionLogic. Everything is None until a service is opened.

    service: see RefSegSlicerLib/connection.py; catalog: the models it has; learning: what it learns.
    """

    def __init__(self, scene, later=None):
        super().__init__(scene, later)
        self.service = self.catalog = self.learning = None

    def openService(self, service):
        """Work with this service from now on. True if it is another one than before, or has other settings.

        Raises BadInput while a session is open: it lives at the service it was begun at.
        """
        if self.service is not None and self.service.about == service.about:
            return False
        if self.session is not None or self.turns.busy:
            raise BadInput(_("A session is open. Accept or end it first; then work elsewhere."))
        from RefSegSlicerLib.catalog import Catalog

        from InteractiveLearningSlicerLib.learning_logic import LearningLogic

        self.closeService()
        self.service, self.catalog, self.learning = service, Catalog(service), LearningLogic(service)
        return True

    def closeService(self):
        """Need the service no more. What it was learning goes on, or is gone on with when it is started again."""
        for part in (self.catalog, self.learning):
            if part is not None:
                part.close()
        if self.service is not None:
            # After what the session has still to say: that would reach for the service again.
            self.turns.aside(self.service.leave)
        self.service = self.catalog = self.learning = None

    def begin(self, volumeNode, segmentationNode, model, then=None):
        """Begin to correct the segments of a segmentation at the service. model: the one that will learn, or empty."""
        from InteractiveLearningLib.service.service_desk import ServiceDesk

        found = self.catalog.find(model) if model else None
        known = {} if found is None else found.named
        return self.startSession(volumeNode, segmentationNode, ServiceDesk(self.service), known=known, then=then)
