"""The loop that trains a network, whatever it learns: seeded, averaged, resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode

from RefSegLib.errors import RefSegError
from RefSegLib.progress import SILENT, Progress

log = logging.getLogger(__name__)

WARM_UP = 100  # steps until the learning rate is full
Batch = tuple[torch.Tensor, ...]  # all of one length

AVERAGING = 0.998  # of the running mean of the weights that is validated and kept


@dataclass
class Fit:
    """What came of a training. weights: those that validated best; score: how well; seconds: how long it took, breaks
    left out; history: one entry per check."""

    weights: dict[str, torch.Tensor]
    score: float
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def best_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    return device.type != "cpu" or any(torch.cpu.get_capabilities().get(k) for k in ("avx512_bf16", "amx_bf16"))


@contextmanager
def fast_precision(device: torch.device) -> Iterator[None]:
    """Mixed precision where it is faster: it halved the time of a step on a CPU that has it (DynUNet 16-128,
    40x56x40, two cores: 110 to 58 ms a patch)."""
    fast = has_bfloat16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        if fast and device.type == "cpu":
            with _ThinVolumesInFull():
                yield
        else:
            yield


class _ThinVolumesInFull(TorchFunctionMode):
    """Convolutions of volumes of two slices in float32: in bfloat16 the gradient of their weights is wrong or not a
    number (PyTorch 2.13 and oneDNN on CPUs with AMX; a kernel of 3 and a stride of 1; no other size was)."""

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is not F.conv3d or args[0].shape[2] != 2:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(*(a.float() if isinstance(a, torch.Tensor) else a for a in args), **(kwargs or {}))


def fit(
    module: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    loss_of: Callable[[nn.Module, Batch], torch.Tensor],
    validate: Callable[[nn.Module], float],
    *,
    epochs: int,
    steps: int,
    pieces: int,
    rate: float = 1e-3,
    check_every: int = 1,
    patience: int = 20,
    averaging: Callable[[nn.Module], None] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> Fit:
    """Train `module` in place by AdamW with a warm-up and a cosine, keeping a running mean of the weights.

    batches(epoch): the `steps` batches of `pieces` patches of an epoch, the same for the same epoch; validate: the
    larger the better, called every `check_every` epochs on the running mean; `patience` checks without a better one
    end the training.
    averaging: is given the running mean before the first step, for whoever teaches with it; it changes in place.
    checkpoint: a file from which a killed training goes on where it was, to the same weights; dropout goes on too, but
    where several threads draw from it at once (`_workers`) it is never the same twice.
    Raises RefSegError if the loss is no longer a number.
    """
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=1e-2)
    total = epochs * steps

    def schedule(step: int) -> float:
        warm = min(WARM_UP, max(1, total // 10))
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))) + 1e-3)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)

    # A short memory at first, so that the mean does not drag along the random start.
    def averaged(mean: torch.Tensor, new: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        share = 1 - min(AVERAGING, (1 + float(n)) / (10 + float(n)))
        return mean.lerp(new, share) if mean.is_floating_point() else new

    # Statistics of batch norm too: those of the last ten batches do not fit the mean of the weights.
    average = AveragedModel(module, avg_fn=averaged, use_buffers=True)
    parts = {"module": module, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    state: dict[str, Any] = {"epoch": 0, "score": -math.inf, "since": 0, "seconds": 0.0, "weights": {}, "history": []}
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved.pop(name))
        _set_random(saved.pop("random", None), module)
        state = saved
    if averaging is not None:
        averaging(average.module)
    with _workers(module, pieces) as pool:
        while state["epoch"] < epochs and state["since"] < patience:
            epoch, started = state["epoch"], time.monotonic()
            module.train()
            losses = []
            for batch in batches(epoch):
                loss = _gradients(module, loss_of, batch, pool)
                nn.utils.clip_grad_norm_(module.parameters(), 12.0)
                optimizer.step()
                scheduler.step()
                average.update_parameters(module)
                losses.append(loss)
                progress((epoch + len(losses) / steps) / epochs, f"epoch {epoch + 1} of {epochs}")
            mean_loss = float(torch.stack(losses).mean())
            if not math.isfinite(mean_loss):
                raise RefSegError(
                    f"Training broke down in epoch {epoch + 1} (the loss is {mean_loss}). Try another seed."
                )
            state["epoch"] = epoch + 1
            state["seconds"] += time.monotonic() - started
            if (epoch + 1) % check_every and epoch + 1 < epochs:
                continue
            average.module.eval()
            with torch.inference_mode():
                score = float(validate(average.module))
            state["history"].append({"epoch": epoch + 1, "loss": mean_loss, "score": score})
            log.info("epoch %d of %d: loss %.4f, validation %.4f", epoch + 1, epochs, mean_loss, score)
            if score > state["score"]:
                weights = {name: value.detach().cpu().clone() for name, value in average.module.state_dict().items()}
                state |= {"score": score, "since": 0, "weights": weights}
            else:
                state["since"] += 1
            if checkpoint is not None:
                states = {name: part.state_dict() for name, part in parts.items()}
                save_checkpoint(checkpoint, state | states | {"random": _random(module)})
    module.load_state_dict(state["weights"])
    module.eval()
    return Fit(state["weights"], state["score"], state["seconds"], state["history"])


def _random(module: nn.Module) -> torch.Tensor:
    """The state of the generator that dropout draws from."""
    device = next(module.parameters()).device
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random(state: torch.Tensor | None, module: nn.Module) -> None:
    """As `_random` found it; None, in a checkpoint of an older version, changes nothing."""
    if state is None:
        return
    device = next(module.parameters()).device
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


@contextmanager
def _workers(module: nn.Module, pieces: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that take their share of a batch each, on a CPU; None where the batch has to stay together.

    Measured on two cores: 130 ms a batch of two instead of 150 with all threads in every layer, and 250 instead of 440
    to 1040 while something else runs, because threads wait for each other once a step, not once a layer. What the main
    thread does in between is too small for threads of its own. Batch statistics need the whole batch.
    """
    threads = torch.get_num_threads()
    together = any(isinstance(part, _BatchNorm) for part in module.modules())
    if next(module.parameters()).device.type != "cpu" or together or min(threads, pieces) < 2:
        yield None
        return
    workers = min(threads, pieces)
    share = threads // workers
    torch.set_num_threads(share)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def _gradients(
    module: nn.Module,
    loss_of: Callable[[nn.Module, Batch], torch.Tensor],
    batch: Batch,
    pool: ThreadPoolExecutor | None,
) -> torch.Tensor:
    """Set the gradients of the parameters for a batch, each worker of a pool taking a share of it; returns the loss."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def piece_by_piece(piece: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        loss = loss_of(module, piece)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    if pool is None:
        results, weights = [piece_by_piece(batch)], torch.ones(1)
    else:
        shares = [part.tensor_split(pool._max_workers) for part in batch]
        results = list(pool.map(piece_by_piece, zip(*shares, strict=True)))
        sizes = torch.tensor([len(share) for share in shares[0]], dtype=torch.float32)
        weights = sizes / sizes.sum()
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in results), strict=True):
        parameter.grad = sum(w * g for w, g in zip(weights.tolist(), gradients, strict=True))
    return sum(w * loss for w, (loss, _) in zip(weights.tolist(), results, strict=True))


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Whole or not at all: a training killed while saving goes on from the checkpoint before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(file)
