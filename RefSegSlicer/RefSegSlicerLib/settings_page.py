"""The page of RefSeg in Edit > Application Settings. The one file here that builds widgets; imported when Slicer is up.

A token is not among it: people sign in in the panels.
"""

import ctk
import qt
import slicer

from RefSegSlicerLib import settings
from RefSegSlicerLib.translation import tr as _

TITLE = "RefSeg"
PATH_CHANGED, TEXT_CHANGED = "currentPathChanged(QString)", "textChanged(QString)"
_added = []


class SettingsPage(ctk.ctkSettingsPanel):
    """Keeps the keys of settings.py and its widgets alike, also when a panel changes them."""

    def __init__(self, *arguments, **options):
        ctk.ctkSettingsPanel.__init__(self, *arguments, **options)
        form = qt.QFormLayout(self)
        where = ctk.ctkComboBox()
        where.addItem(_("This computer"), settings.LOCAL)
        where.addItem(_("A server of your site"), settings.SITE)
        files, folders = ctk.ctkPathLineEdit.Files, ctk.ctkPathLineEdit.Dirs
        for label, key, widget, name, signal, tip in (
            (
                _("&Engine runs on:"),
                settings.WHERE_KEY,
                where,
                "currentUserDataAsString",
                "currentIndexChanged(int)",
                _("Where images are segmented and models learn. A session that is open stays where it is."),
            ),
            (
                _("&Python of the engine:"),
                settings.PYTHON_KEY,
                _path(files),
                "currentPath",
                PATH_CHANGED,
                _("The program python that has the engine. Empty: Slicer's own."),
            ),
            (
                _("&Models and cases in:"),
                settings.STORE_KEY,
                _path(folders),
                "currentPath",
                PATH_CHANGED,
                _("The folder of models and accepted cases on this computer. Empty: .refseg in your home folder."),
            ),
            (
                _("Packages &from:"),
                settings.WHEELHOUSE_KEY,
                _path(folders),
                "currentPath",
                PATH_CHANGED,
                _("Without internet: a folder that holds the packages as wheels. Empty: from the internet."),
            ),
            (
                _("&Address of the server:"),
                settings.URL_KEY,
                qt.QLineEdit(),
                "text",
                TEXT_CHANGED,
                _("For example https://segment.example.org:8443. Sign in in the module Interactive Learning."),
            ),
            (
                _("&Certificate of the server:"),
                settings.CERTIFICATE_KEY,
                _path(files),
                "currentPath",
                PATH_CHANGED,
                _("A file of the server's certificate, if it is one of the site's own; else leave it empty."),
            ),
        ):
            widget.toolTip = tip
            form.addRow(label, widget)
            self.registerProperty(key, widget, name, str(qt.SIGNAL(signal)))
        # What a panel has changed is shown, and kept when this page is left by Cancel.
        settings.changed.connect(self.reloadSettings)


def addPage():
    """Add the page to the application's settings, unless it is there or there is no main window."""
    if slicer.app.commandOptions().noMainWindow or _added:
        return
    page = SettingsPage()
    _added.append(page)  # Python would delete it otherwise
    slicer.app.settingsDialog().addPanel(TITLE, page)


def _path(filters):
    edit = ctk.ctkPathLineEdit()
    edit.filters = filters
    return edit
