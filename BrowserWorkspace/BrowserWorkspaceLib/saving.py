"""Masks, the report and a session's log as files for the browser.

A .seg.nrrd is written by Slicer's own storage, with all that segments carry: what was said about them, too. NIfTI holds
the numbers alone, one for each segment; the report tells which is which. Nodes are read at once, and all else is done
in threads.
"""

import asyncio
import json
import tempfile
from html import escape
from pathlib import Path

import numpy as np
from InteractiveLearningSlicerLib import segments
from RefSegLib.errors import RefSegError
from RefSegLib.volume.volume import LabelMap
from RefSegSlicerLib import masks, mrml, provenance, words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VBtn, VProgressLinear

from BrowserWorkspaceLib import segmentation_file, snapshot
from BrowserWorkspaceLib.widgets import heading, quoted

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 14px sans-serif; margin: 2em; }} td {{ padding: 2px 12px 2px 0; vertical-align: top; }}</style>
<h1>{title}</h1>{body}<p><em>{warning}</em></p></html>
"""


class SavePanel:
    """app: WorkspaceApp."""

    key, title, tip = "save", _("Save"), _("Download the masks, the report, and the log of a session.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._state.update({"save_why": "", "log_why": "", "save_name": "image", "saving": False})
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        html.Div(
            _("Everything is also saved here by itself, and is there again when this page is opened the next time."),
            classes="text-body-2 mb-2",
        )
        heading(_("Download"))
        for name, text, tip, icon, suffix, make, why in (
            (
                "seg",
                _("Masks for Slicer (.seg.nrrd)"),
                _("With names, colors and all that was said about them."),
                "mdi-cube-outline",
                ".seg.nrrd",
                seg,
                "save_why",
            ),
            (
                "nifti",
                _("Masks as NIfTI (.nii.gz)"),
                _("Numbers alone; the report tells what they mean."),
                "mdi-grid",
                ".nii.gz",
                nifti,
                "save_why",
            ),
            (
                "report",
                _("Report (.html)"),
                _("Volumes, quality, and how the masks came about."),
                "mdi-file-document-outline",
                " report.html",
                report,
                "save_why",
            ),
            (
                "log",
                _("Session log (.json)"),
                _("Everything that happened in the session, in its order, for an audit."),
                "mdi-text-box-outline",
                " session.json",
                lambda *_nodes: log(self._app.workspace.session),
                "log_why",
            ),
        ):
            trigger = self._app.ctrl.trigger_name(self._guarded(make))
            # What could not be made was told, and is no file.
            download = (
                f"trigger('{trigger}').then((made) => made && "
                f"utils.download(save_name + {quoted(suffix)}, made, 'application/octet-stream'))"
            )
            with html.Div(title=(f"{why} || {quoted(tip)}",), classes="mb-2"):
                VBtn(
                    text=text,
                    prepend_icon=icon,
                    variant="tonal",
                    block=True,
                    disabled=(f"!!{why} || saving",),
                    click=download,
                    classes=f"refseg-save-{name}",
                )
        VProgressLinear(v_if=("saving",), indeterminate=True, color="primary")

    def poll(self):
        """Nothing happens by itself."""

    def shown(self):
        """Another volume is worked on."""
        name = self._app.volume_node.GetName()
        self._state.save_name = "".join("_" if letter in '/\\:*?"<>|' else letter for letter in name)

    def update(self):
        """Enable what can succeed, and say why the rest cannot."""
        reason, node = self._app.opened_reason(), self._app.segmentation_node
        if not reason and not node.GetSegmentation().GetNumberOfSegments():
            reason = _("There are no segments yet.")
        self._state.save_why = reason
        running = self._app.workspace.session is not None
        self._state.log_why = "" if running else _("No session is open. Start one in Correct.")

    def chosen(self) -> dict:
        """Nothing is selected here."""
        return {}

    def restore(self, chosen):
        """Select what `chosen` told."""

    def close(self):
        """Nothing is left behind."""

    def _guarded(self, make):
        async def made():
            with self._state:
                self._state.saving = True
            try:
                return self._app.server.protocol.addAttachment(
                    await make(self._app.volume_node, self._app.segmentation_node)
                )
            except RefSegError as error:
                self._app.failed(error)
            except OSError as error:
                text = _("The file could not be made: {reason}.")
                self._app.failed(RefSegError(text.format(reason=error.strerror or error)))
            except Exception:  # into the log
                self._app.failed(RefSegError(_("This did not work, by a fault of the program; its log says more.")))
                raise
            finally:
                with self._state:
                    self._state.saving = False

        return made


async def seg(volume_node, segmentation_node) -> bytes:
    """The segmentation as Slicer writes it: a .seg.nrrd. Raises BadInput under a transform that bends."""
    taken = snapshot.take(volume_node, segmentation_node)
    return await asyncio.to_thread(segmentation_file.write, taken)


async def nifti(volume_node, segmentation_node) -> bytes:
    """All segments in one image of numbers, see `numbers`: a .nii.gz where the volume lies in the patient.

    Raises BadInput under a transform that bends or shears.
    """
    grid = mrml.worldGrid(volume_node)
    parts = segments.snapshot(segmentation_node, volume_node, numbers(segmentation_node))
    return await asyncio.to_thread(_nifti, parts, grid)


async def report(volume_node, segmentation_node) -> bytes:
    """What the masks are, for people: HTML. Raises BadInput as `nifti` does."""
    values, node, volume = numbers(segmentation_node), segmentation_node, volume_node
    names = [node.GetSegmentation().GetSegment(identifier).GetName() for identifier in values]
    parts = segments.snapshot(node, volume, values)
    milliliter = float(np.prod(mrml.worldGrid(volume).spacing)) / 1000
    done, changed = provenance.stamped(node), masks.changedSegments(node.GetSegmentation())
    title = volume.GetName()
    counts = await asyncio.to_thread(lambda: [part.count() for part in parts])
    rows = [
        (value, name, f"{count * milliliter:.2f} ml")
        for value, name, count in zip(values.values(), names, counts, strict=True)
    ]
    cells = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in line)}</tr>" for line in rows)
    body = f"<h2>{escape(_('Masks as they are now'))}</h2><table>{cells}</table>"
    if done:
        body += f"<h2>{escape(_('As they were found'))}</h2>{words.table(done.get('found') or {}, changed)}"
        body += f"<h2>{escape(_('How they were made'))}</h2>{words.whatWasDone(done)}"
    title, warning = escape(title), escape(_("Not for diagnostic use."))
    return PAGE.format(title=title, body=body, warning=warning).encode()


async def log(session) -> bytes:
    """What happened in a session, as JSON. Raises RefSegError if its service does not answer."""
    return await asyncio.to_thread(lambda: json.dumps(session.export_log(), indent=1).encode())


def numbers(node) -> dict[str, int]:
    """A number for each segment id: the segments' own label values where these are all different, else 1, 2, 3, ..."""
    segmentation = node.GetSegmentation()
    values = {
        identifier: segmentation.GetSegment(identifier).GetLabelValue() for identifier in segmentation.GetSegmentIDs()
    }
    if len(set(values.values())) < len(values) or min(values.values(), default=1) < 1:
        return {identifier: value for value, identifier in enumerate(values, start=1)}
    return values


def _nifti(parts, grid) -> bytes:
    from RefSegLib.volume.io import write_labels

    labels = segments.labelMap(parts, grid.shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.nii.gz"
        write_labels(LabelMap(labels, grid), path)
        return path.read_bytes()
