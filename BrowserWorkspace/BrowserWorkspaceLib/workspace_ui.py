"""The page: what is opened on top, panels on the left, four views beside them."""

from RefSegSlicerLib.translation import tr as _
from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets.vuetify3 import (
    VAlert,
    VAppBar,
    VBtn,
    VCard,
    VCardActions,
    VCardText,
    VDialog,
    VMain,
    VNavigationDrawer,
    VProgressLinear,
    VSpacer,
    VTab,
    VTabs,
    VTextField,
    VToolbarTitle,
)
from trame_slicer.app.ui import (
    FlexContainer,
    LayoutButton,
    SegmentEditorToolbarUI,
    SegmentEditorUI,
    SegmentEditorUndoRedoUI,
)

from BrowserWorkspaceLib import ordering
from BrowserWorkspaceLib.uploading import Uploading

TITLE = "RefSeg"
DRAWER_WIDTH = 400
EDIT = "edit"


class WorkspaceUI:
    """app: WorkspaceApp; panels: things with `key`, `title`, `tip` and build(), in their order."""

    def __init__(self, app, panels):
        self._app, self._uploading = app, Uploading(app, app.uploaded)
        with VAppLayout(app.server, template_name="main") as self.layout:
            self.layout.root.theme = "dark"
            client.Style("html { overflow-y: auto; } .v-btn { text-transform: none; letter-spacing: normal; }")
            ordering.build()
            self._bar()
            self._folder_dialog()
            self._tools()
            with VNavigationDrawer(permanent=True, location="left", width=DRAWER_WIDTH, disable_resize_watcher=True):
                self._drawer(panels)
            with VMain():
                content = FlexContainer(row=True, fill_height=True, **self._uploading.dropped())
                with content:
                    app.layout_manager.initialize_layout_grid(self.layout)

    def _bar(self):
        with VAppBar(density="compact"):
            VToolbarTitle(TITLE, classes="ml-3", style="max-width: 100px; user-select: none;")
            self._uploading.build()
            VBtn(
                text=_("DICOM folder"),
                prepend_icon="mdi-folder-open",
                title=_("Open a folder of DICOM files that lies on the server."),
                click="open_folder_shown = true",
                classes="refseg-folder",
            )
            VBtn(
                text=_("Sample"),
                prepend_icon="mdi-head-outline",
                title=_("Open a head of the demonstration."),
                click=self._app.open_sample,
                classes="refseg-sample",
            )
            html.Span("{{ volume_name }}", classes="text-medium-emphasis ml-3 refseg-volume")
            VSpacer()
            html.Span(_("Not for diagnostic use"), classes="text-caption text-medium-emphasis mr-4")
            if self._app.signed_in:  # of the launcher, which ends the cookie and shows its own page
                with html.Form(action="/-/sign-out", method="post"):
                    tip = _("What is open is kept for the next time.")
                    VBtn(text=_("Sign out"), title=tip, raw_attrs=['type="submit"'])
            VProgressLinear(active=("open_busy || uploading",), indeterminate=True, absolute=True, location="bottom")

    def _folder_dialog(self):
        with VDialog(v_model=("open_folder_shown", False), max_width=560), VCard(title=_("A DICOM folder")):
            with VCardText():
                VTextField(
                    v_model=("open_folder", ""),
                    label=_("Folder on the server"),
                    density="compact",
                    classes="refseg-folder-path",
                )
                VTextField(
                    v_model=("open_series", ""),
                    label=_("Series: its number or a part of its description, where there are several"),
                    density="compact",
                )
            with VCardActions():
                VSpacer()
                VBtn(text=_("Cancel"), click="open_folder_shown = false")
                VBtn(text=_("Open"), click=self._app.open_folder, variant="tonal", classes="refseg-folder-open")

    def _tools(self):
        """A narrow bar: layouts, and trame-slicer's own tools to paint with."""
        with (
            VNavigationDrawer(permanent=True, location="left", width=44, disable_resize_watcher=True),
            FlexContainer(fill_height=True, align="center", classes="py-2"),
        ):
            LayoutButton(classes="mt-1", disabled=("!volume_name",))
            self._toolbar = FlexContainer(align="center")
            VSpacer()
            self._undo = FlexContainer(align="center")

    def _drawer(self, panels):
        # In sight however far a panel is scrolled.
        with html.Div(style="position: sticky; top: 0; z-index: 2; background: rgb(var(--v-theme-surface));"):
            with VTabs(v_model=("panel", panels[0].key), density="compact", grow=True, show_arrows=False):
                for panel in panels:
                    VTab(
                        text=panel.title, value=panel.key, title=panel.tip, min_width=0, classes=f"px-2 tab-{panel.key}"
                    )
                VTab(
                    text=_("Edit"),
                    value=EDIT,
                    title=_("Segments, and tools to paint with."),
                    min_width=0,
                    classes="px-2 tab-edit",
                )
            VAlert(
                v_if=("notice",),
                text=("notice",),
                type=("notice_kind", "info"),
                density="compact",
                variant="tonal",
                closable=True,
                click_close="notice = ''",
                style="white-space: pre-line; font-size: 0.85rem; line-height: 1.3;",
                classes="ma-2 refseg-notice",
            )
        for panel in panels:
            with html.Div(v_show=(f"panel === '{panel.key}'",), classes=f"pa-3 panel-{panel.key}"):
                panel.build()
        with html.Div(v_show=(f"panel === '{EDIT}'",), style="height: calc(100% - 60px);"):
            self.editor = SegmentEditorUI()
        with self._toolbar:
            SegmentEditorToolbarUI(editor_ui=self.editor)
        with self._undo:
            SegmentEditorUndoRedoUI(editor_ui=self.editor, v_show=(f"panel === '{EDIT}'",))
