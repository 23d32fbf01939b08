"""Files and folders from the browser: chosen with two buttons, or dropped on the views."""

from RefSegLib.errors import BadInput
from RefSegSlicerLib.translation import tr as _
from trame.widgets import client, html
from trame.widgets.vuetify3 import VBtn

# Folders that were dropped are walked through here. What a drop holds has to be asked for before anything is waited
# for: the browser forgets it. One after another: a second drop waits until the first one is through.
SCRIPT = """
window.refseg_send = (given, chunk, end) => {
  const found = given.items
    ? [...given.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry() || item.getAsFile())
    : [...given];
  const walk = async (entry, files) => {
    if (entry instanceof File) files.push(entry);
    else if (entry.isFile) files.push(await new Promise((done, failed) => entry.file(done, failed)));
    else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!some.length) break;
        for (const one of some) await walk(one, files);
      }
    }
  };
  const send = async () => {
    let problem = "";
    try {
      const files = [];
      for (const entry of found) await walk(entry, files);
      const { status, errorMsg } = await window.load_files_by_chunks(files, { trigger_name: chunk });
      problem = status ? "" : String(errorMsg);
    } catch (error) {
      problem = String(error.message || error);
    }
    await trame.trigger(end, [problem]);
  };
  window.refseg_sending = (window.refseg_sending || Promise.resolve()).then(send);
};
"""


class Uploading:
    """app: WorkspaceApp; uploaded(files): gets what has been sent, dicts with name and content."""

    def __init__(self, app, uploaded):
        self._app, self._state, self._uploaded, self._files = app, app.state, uploaded, []
        self._state.uploading = False
        chunk, end = (app.server.trigger_name(function) for function in (self._on_chunk, self._on_end))
        self._send = f"window.refseg_send({{}}, '{chunk}', '{end}')"

    def build(self):
        """Make the buttons, where the page is being made."""
        client.Script(SCRIPT)
        for name, icon, title, options in (
            (
                "files",
                "mdi-file-upload",
                _("Open an image of this computer, the files of a DICOM series, or a mask (.seg.nrrd)."),
                {"multiple": True},
            ),
            ("directory", "mdi-folder-upload", _("Open a folder of DICOM files of this computer."), {}),
        ):
            html.Input(
                type="file",
                ref=f"refseg_{name}",
                style="display: none;",
                change=self._send.format("$event.target.files") + "; $event.target.value = ''",
                raw_attrs=["webkitdirectory"] if name == "directory" else [],
                **options,
            )
            VBtn(
                icon=icon,
                title=title,
                aria_label=title,
                click=f"trame.refs.refseg_{name}.click()",
                classes=f"refseg-open-{name}",
            )

    def dropped(self) -> dict:
        """What makes an element of the page one that files are dropped on."""
        send = self._send.format("$event.dataTransfer")
        return {"raw_attrs": ["@dragover.prevent", f'@drop.prevent="{send}"'], "classes": "refseg-views"}

    def _on_chunk(self, files):
        self._state.uploading = True
        self._files.extend(files)

    def _on_end(self, problem):
        files, self._files = self._files, []
        self._state.uploading = False
        if problem:
            text = _("The browser could not read the files: {reason}. Are they still there?")
            self._app.failed(BadInput(text.format(reason=problem.rstrip("."))))
        else:
            self._uploaded(files)
