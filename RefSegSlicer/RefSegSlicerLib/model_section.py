"""The panel's inputs: which model, what its card says, where it looks, and whether it reflects. Knows no Qt."""

import re

from RefSegSlicerLib import words
from RefSegSlicerLib.catalog import Catalog
from RefSegSlicerLib.segmentation_logic import WHOLE
from RefSegSlicerLib.translation import tr as _

AUTOMATIC, ROI = "automatic", "roi"
KINDS = (AUTOMATIC, WHOLE, ROI)


class ModelSection:
    """ui: widgets by name; values(): the parameter node's wrapper; changed(): something was chosen."""

    def __init__(self, ui, values, changed):
        self.ui, self._values, self._changed = ui, values, changed
        self.catalog, self._trouble, self._card = None, "", None
        ui.regionKindSelector.addItems([_("Automatic"), _("Whole volume"), _("Region of interest")])
        ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        ui.regionKindSelector.connect("currentIndexChanged(int)", self.onKindChosen)

    def use(self, service):
        """Offer the models of a service (see connection.open_service); None: of nobody."""
        self.close()
        self._trouble = ""
        if service is not None:
            self.catalog = Catalog(service)
            self.catalog.changed.connect(self.onModels)
            self.catalog.failed.connect(self.onTrouble)
        self.onModels()

    def enter(self):
        """Models may have been published since the last visit."""
        if self.catalog is not None:
            self.catalog.refresh()

    def poll(self):
        """Tell what has been read."""
        if self.catalog is not None:
            self.catalog.poll()

    def close(self):
        """Nothing more is wanted."""
        if self.catalog is not None:
            self.catalog.close()
            self.catalog = None

    @property
    def model(self):
        """The model that is chosen (catalog.Model), None if there is none."""
        return None if self.catalog is None else self.catalog.find(self._values().model)

    def reason(self):
        """Why nothing can be segmented with what is chosen here; empty if it can."""
        if self.model is None:
            if self.catalog is not None and self.catalog.refreshing:
                return _("Looking for models.")
            return self._trouble or _("There is no model in the store. Import or train one.")
        if self._values().regionKind == ROI and self._values().region is None:
            return _("Choose or create a region of interest, or let the model look by itself.")
        return ""

    def options(self):
        """What SegmentationLogic.segment is to be told besides volume, model and output."""
        values = self._values()
        kinds = {WHOLE: WHOLE, ROI: values.region}
        return {"reflect": None if values.reflect else False, "region": kinds.get(values.regionKind)}

    def onModels(self):
        """Fill the list of models."""
        self._trouble = "\n".join(self.catalog.broken) if self.catalog is not None else ""
        models = () if self.catalog is None else self.catalog.models
        names = [model.name for model in models]
        selector, values = self.ui.modelSelector, self._values()
        selector.blockSignals(True)
        selector.clear()
        selector.addItems(names)
        if names and values.model not in names:
            values.model = names[0]
        selector.setCurrentIndex(names.index(values.model) if names else -1)
        selector.blockSignals(False)
        self._changed()

    def onTrouble(self, error):
        """The models could not be read: those known stay."""
        self._trouble = str(error)
        self._changed()

    def onModelChosen(self, index):
        """Segment with this one."""
        if index >= 0:
            self._values().model = self.ui.modelSelector.currentText
            self._changed()

    def onKindChosen(self, index):
        """Look there."""
        self._values().regionKind = KINDS[index]

    def update(self):
        """Show what the model is for, and enable what it can do."""
        ui, values, model = self.ui, self._values(), self.model
        names = [] if self.catalog is None else [model.name for model in self.catalog.models]
        if values.model in names and ui.modelSelector.currentText != values.model:  # of a scene that was loaded
            ui.modelSelector.blockSignals(True)
            ui.modelSelector.setCurrentIndex(names.index(values.model))
            ui.modelSelector.blockSignals(False)
        ui.modelLabel.text = "" if model is None else self._about(model)
        card = _("Choose a model.") if model is None else model.card
        if card != self._card:
            self._card = card
            ui.cardBrowser.setMarkdown(re.sub("(?m)^#", "###", card))  # headings of a page are too large here
        ui.reflectBox.enabled = model is not None and model.reflects
        ui.reflectBox.toolTip = words.aboutReflection(model)
        kind = values.regionKind if values.regionKind in KINDS else AUTOMATIC
        ui.regionKindSelector.blockSignals(True)
        ui.regionKindSelector.setCurrentIndex(KINDS.index(kind))
        ui.regionKindSelector.blockSignals(False)
        ui.regionKindSelector.toolTip = aboutRegion(kind)
        ui.regionSelector.enabled = kind == ROI
        ui.regionSelector.toolTip = (
            _("Look only inside this box. It may be turned and lie under a transform.")
            if kind == ROI
            else _("Choose 'Region of interest' on the left to look only inside a box.")
        )

    @staticmethod
    def _about(model):
        what = model.description or ", ".join(label.name for label in model.labels)
        return _("{what} (version {version})").format(what=what, version=model.version)


def aboutRegion(kind):
    """What it means to look there: one of KINDS."""
    if kind == AUTOMATIC:
        return _("The model looks by itself where its structures are: the usual choice.")
    if kind == WHOLE:
        return _(
            "All of the volume is looked at as it is. Left and right are then not told apart by models that "
            "otherwise look for each side; this takes longer in large volumes."
        )
    return _("Only a box is looked at. Left and right are then not told apart by models that look for each side.")
