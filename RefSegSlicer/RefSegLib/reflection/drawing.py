"""Drawing many proxy images: through OpenVINO where the synthesizer runs on a CPU, else by torch.

Measured on one core, hippocampus synthesizer, 35 x 52 x 34 voxels: torch 0.139 s, OpenVINO 0.021 s a proxy, and 1.6 s
once for the conversion; reflection on one image draws ten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from RefSegLib.inference.segmenter import to_openvino
from RefSegLib.synthesis.synthesizer import Synthesizer

log = logging.getLogger(__name__)

Draw = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
Box = tuple[slice, slice, slice]

# Proxies after which the conversion pays: whoever segments one image never waits for it.
WORTHWHILE = 12


class _Drawer:
    """Draws with the weights the synthesizer has now; through OpenVINO once that has become worthwhile."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        # Not the synthesizer itself: a value that holds its key would never leave the dictionary.
        self._plain = Synthesizer(synthesizer.spec, synthesizer.module)
        self._fast: Draw | None = None
        device = next(synthesizer.module.parameters()).device
        # A network over slices is traced for one number of slices; in two dimensions torch is fast enough.
        self._left = WORTHWHILE if device.type == "cpu" and synthesizer.spec.dimensions == 3 else -1

    def __call__(self, masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """masks (outputs, k, j, i), of a size the network can halve, to the proxy image (k, j, i)."""
        if self._left == 0:
            try:
                self._fast = _openvino(self._plain)
            except Exception as error:  # whatever stops the conversion, torch draws the same, only later
                log.info("OpenVINO could not take over the synthesizer: %s", error)
        self._left -= 1
        return (self._fast or self._plain.proxy)(masks)


_drawers: WeakKeyDictionary[Synthesizer, Draw] = WeakKeyDictionary()


def drawer(synthesizer: Synthesizer) -> Draw:
    """What draws for this synthesizer, the same as long as it lives."""
    if synthesizer not in _drawers:
        _drawers[synthesizer] = _Drawer(synthesizer)
    return _drawers[synthesizer]


def padding(
    shape: tuple[int, ...], smallest: tuple[int, int, int], divisible: tuple[int, int, int]
) -> tuple[list[tuple[int, int]], Box]:
    """Margins per axis that bring `shape` to `smallest` at least and to multiples of `divisible`; and the inside.

    On both sides, as inference pads: instance normalization should see about as much as in training.
    """
    margins = []
    for n, least, divisor in zip(shape, smallest, divisible, strict=True):
        missing = max(0, least - n)
        missing += -(n + missing) % divisor
        margins.append((missing // 2, missing - missing // 2))
    return margins, tuple(slice(low, low + n) for (low, _), n in zip(margins, shape, strict=True))


def _openvino(synthesizer: Synthesizer) -> Draw:
    import openvino as ov  # not needed, and not always there, where a GPU does the work

    spec = synthesizer.spec
    example = torch.zeros(1, spec.outputs, *spec.patch)
    model = to_openvino(synthesizer.module, example)
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()

    def draw(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        request.infer([np.ascontiguousarray(masks[None], np.float32)])
        return request.get_output_tensor().data[0, 0].copy()

    return draw
