"""Networks that turn patches into logits, and the machinery that runs them: OpenVINO on a CPU, torch on a GPU."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from RefSegLib.errors import BadInput
from RefSegLib.models.networks import divisors, restored_segmenter
from RefSegLib.models.spec import SegmenterSpec

if TYPE_CHECKING:
    from RefSegLib.models.store import ModelVersion

# OpenVINO reports every conversion to its makers, from a process that it forks for that. Nothing of RefSeg calls home:
# without this package OpenVINO reports nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

Array = TypeVar("Array", npt.NDArray[np.float32], torch.Tensor)


@runtime_checkable
class Segmenter(Protocol):
    """What gives logits. It may also have a `device`; patches then come as tensors that lie there already."""

    spec: SegmenterSpec

    def logits(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, C, k, j, i) float32, normalized, to (n, outputs, k, j, i) float32 before the softmax."""
        ...


class TorchSegmenter:
    """A network run by torch.

    module: the network itself, in evaluation mode, on `device`; whoever changes its weights changes the next result.
    reason: why torch had to step in for a faster backend, if it did.
    """

    def __init__(
        self, spec: SegmenterSpec, module: nn.Module, device: str | torch.device = "cpu", reason: str | None = None
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.module = module.to(self.device).eval()
        self.reason = reason

    @torch.inference_mode()
    def logits(self, patches: Array) -> Array:
        """See Segmenter. A tensor is answered by a tensor on the same device, an array by an array."""
        tensor = torch.as_tensor(patches, dtype=torch.float32, device=self.device)
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            result = self.module(tensor).float()
        return result if isinstance(patches, torch.Tensor) else result.cpu().numpy()


class OpenVinoSegmenter:
    """A network run by OpenVINO on the CPU.

    module: the torch network it was made from. Its weights were copied: a change of them is not seen here; reflection
    takes TorchSegmenter(spec, module) instead.

    Measured on 2 cores (AMD Zen 5), BasicUNet 16..128, one 96-cubed patch: torch 0.82 s, OpenVINO 0.35 s with free
    shapes, 0.19 s with the shape fixed and the hint for latency (two streams of one thread each come to the same
    per patch, twice the memory); so shapes are fixed, one patch at a time. Compiling for a shape takes 0.1 s.
    """

    def __init__(self, spec: SegmenterSpec, module: nn.Module, precision: str = "f32") -> None:
        """Convert `module`; any exception of OpenVINO or of the tracing of the network is passed on."""
        import openvino as ov  # not needed, and not always there, where a GPU does the work

        self.spec = spec
        self.module = module.cpu().eval()
        self._precision = precision
        # Traced at the smallest size that is halved as evenly as the patch is: networks that look at sizes in Python
        # keep what they saw, and a trace of a whole patch takes more memory than all that follows.
        smallest = (min(n, 2 * divisor) for n, divisor in zip(spec.patch, divisors(spec), strict=True))
        example = torch.zeros(1, len(spec.channels), *smallest)
        self._model = to_openvino(self.module, example)
        self._core = ov.Core()
        self._requests: dict[tuple[int, ...], Any] = {}
        self._request((1, len(spec.channels), *spec.patch))

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape(list(shape))
            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": self._precision,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            }
            self._requests = {shape: self._core.compile_model(model, "CPU", settings).create_infer_request()}
        return self._requests[shape]

    def logits(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See Segmenter."""
        patches = np.ascontiguousarray(patches, np.float32)
        request = self._request((1, *patches.shape[1:]))
        results = []
        for patch in patches:
            request.infer([patch[None]], share_inputs=True)
            results.append(request.get_output_tensor().data.copy())
        return results[0] if len(results) == 1 else np.concatenate(results)


def to_openvino(module: nn.Module, example: torch.Tensor) -> Any:
    """A network as OpenVINO's model, traced with an input; any exception of OpenVINO or the tracing is passed on.

    What torch keeps for ever of every network that was traced is freed: 16 MB for one with 4.5 MB of weights, and a
    process that goes on loads a version for every case that is learnt. torch's own tests free it like this; it has no
    public function for it. Networks read from TorchScript files are kept elsewhere and stay.
    """
    import openvino as ov

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about sizes that it takes for constants
        model = ov.convert_model(module, example_input=example)
    with suppress(AttributeError):
        torch._C._jit_clear_class_registry()
        torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
        torch.jit._state._clear_class_state()
    return model


def load_segmenter(version: ModelVersion, device: str = "auto") -> TorchSegmenter | OpenVinoSegmenter:
    """The segmenter of a stored model version, ready to run.

    device: "cuda", "mps", "cpu", or "auto" for the first of these that is there. A CPU runs the network through
    OpenVINO; if it cannot, through torch, with OpenVINO's words in `reason`.

    Raises BadInput for a device that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, available in there.items() if available)
    kind = device.split(":")[0]
    if not there.get(kind, False):
        usable = ", ".join(name for name, available in there.items() if available)
        raise BadInput(f"There is no device '{device}' on this machine; use auto or one of: {usable}.")
    return ready_segmenter(version.spec, restored_segmenter(version), device)


def ready_segmenter(spec: SegmenterSpec, module: nn.Module, device: str) -> TorchSegmenter | OpenVinoSegmenter:
    """`module` with the fastest backend that takes it over: OpenVINO on a CPU, else torch, which keeps the reason."""
    if not device.startswith("cpu"):
        return TorchSegmenter(spec, module, device)
    try:
        return OpenVinoSegmenter(spec, module)
    except Exception as error:  # whatever stops the conversion, torch gives the same labels, only later
        return TorchSegmenter(spec, module, reason=f"OpenVINO could not take over the network: {error}")
