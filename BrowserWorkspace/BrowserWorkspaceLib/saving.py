"""Masks and the report as files for the browser.

A .seg.nrrd is written by Slicer's own storage, with all that segments carry: what was said about them, too. NIfTI holds
the numbers alone, one for each segment; the report tells which is which.
"""

import asyncio
import tempfile
from html import escape
from pathlib import Path

import numpy as np
import slicer
from InteractiveLearningSlicerLib import segments
from RefSegLib.errors import BadInput
from RefSegLib.volume.volume import LabelMap
from RefSegSlicerLib import masks, mrml, provenance, words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VBtn

from BrowserWorkspaceLib.widgets import heading, quoted

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 14px sans-serif; margin: 2em; }} td {{ padding: 2px 12px 2px 0; vertical-align: top; }}</style>
<h1>{title}</h1>{body}<p><em>{warning}</em></p></html>
"""


class SavePanel:
    """app: WorkspaceApp."""

    key, title, tip = "save", _("Save"), _("Download the masks and the report.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._state.update({"save_why": "", "save_name": "image"})
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        html.Div(
            _("Everything is also saved here by itself, and is there again when this page is opened the next time."),
            classes="text-body-2 mb-2",
        )
        heading(_("Download"))
        for name, text, tip, icon, suffix, make in (
            (
                "seg",
                _("Masks for Slicer (.seg.nrrd)"),
                _("With names, colors and all that was said about them."),
                "cube",
                ".seg.nrrd",
                self.seg,
            ),
            (
                "nifti",
                _("Masks as NIfTI (.nii.gz)"),
                _("Numbers alone; the report tells what they mean."),
                "grid",
                ".nii.gz",
                self.nifti,
            ),
            (
                "report",
                _("Report (.html)"),
                _("Volumes, quality, and how the masks came about."),
                "file-document",
                " report.html",
                self.report,
            ),
        ):
            trigger = self._app.ctrl.trigger_name(self._guarded(make))
            download = f"utils.download(save_name + {quoted(suffix)}, trigger('{trigger}'), 'application/octet-stream')"
            with html.Div(title=(f"save_why || {quoted(tip)}",), classes="mb-2"):
                VBtn(
                    text=text,
                    prepend_icon=f"mdi-{icon}-outline",
                    variant="tonal",
                    block=True,
                    disabled=("!!save_why",),
                    click=download,
                    classes=f"refseg-save-{name}",
                )

    async def seg(self) -> bytes:
        """The segmentation as Slicer writes it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "masks.seg.nrrd"
            write_segmentation(self._app.segmentation_node, path)
            return path.read_bytes()

    async def nifti(self) -> bytes:
        """All segments in one image of numbers, see `numbers`."""
        node, volume = self._app.segmentation_node, self._app.volume_node
        values = numbers(node)
        parts = segments.snapshot(node, volume, values)
        grid = mrml.worldGrid(volume)
        return await asyncio.to_thread(_nifti, parts, grid)

    async def report(self) -> bytes:
        """What the masks are, for people."""
        node, volume = self._app.segmentation_node, self._app.volume_node
        values = numbers(node)
        parts = segments.snapshot(node, volume, values)
        milliliter = float(np.prod(mrml.worldGrid(volume).spacing)) / 1000
        counts = await asyncio.to_thread(lambda: [part.count() for part in parts])
        rows = [
            (
                values[identifier],
                node.GetSegmentation().GetSegment(identifier).GetName(),
                f"{count * milliliter:.2f} ml",
            )
            for identifier, count in zip(values, counts, strict=True)
        ]
        cells = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in line)}</tr>" for line in rows)
        body = f"<h2>{escape(_('Masks as they are now'))}</h2><table>{cells}</table>"
        done = provenance.stamped(node)
        if done:
            changed = masks.changedSegments(node.GetSegmentation())
            body += f"<h2>{escape(_('As they were found'))}</h2>{words.table(done.get('found') or {}, changed)}"
            body += f"<h2>{escape(_('How they were made'))}</h2>{words.whatWasDone(done)}"
        title, warning = escape(volume.GetName()), escape(_("Not for diagnostic use."))
        return PAGE.format(title=title, body=body, warning=warning).encode()

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

    def chosen(self) -> dict:
        """Nothing is selected here."""
        return {}

    def restore(self, chosen):
        """Select what `chosen` told."""

    def close(self):
        """Nothing is left behind."""

    def _guarded(self, make):
        async def made():
            try:
                return self._app.server.protocol.addAttachment(await make())
            except Exception as error:
                with self._state:
                    self._app.failed(error)
                raise

        return made


def write_segmentation(node, path) -> None:
    """Write a segmentation node as .seg.nrrd, every tag of its segments with it. Raises BadInput if it cannot be."""
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise BadInput(_("The masks could not be written."))


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
