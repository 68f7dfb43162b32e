"""What a colorizer costs: multiply-adds, time an image, and memory, measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from common.colorizer import Batch
from common.data.packing import Pack
from common.evaluation.evaluate import Predict

_SECONDS = 1.0  # for the repetitions of one timing, at most
_REPEATS = 9

HOW = (
    "Multiply-adds are those of convolutions and matrix products for one image, counted while it is colorized. Time is"
    " the median of repeated calls of the network, L on the device to ab on the device, with no file read or written."
    " Memory is the peak of the tensors alive in one such call beyond weights and input: {memory}."
)
MEMORY_CPU = "summed over the storages that torch's operators return, without their own scratch space"
MEMORY_CUDA = "what torch's allocator on the GPU had given out"


class _Alive(TorchDispatchMode):
    """Follows the bytes of the storages that operators make, from their making to their release."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        out = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage()._cdata for x in args if isinstance(x, Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in inputs:  # a view of its input is no new memory
                    self.known.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.known = {key: (ref, size) for key, (ref, size) in self.known.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.known.values()))
        return out


@torch.no_grad()
def measure_cost(predict: Predict, pack: Pack, device: torch.device, batch_size: int) -> dict:
    """{"multiply_adds", "ms_one", "ms_batched", "batch", "memory", "memory_batched"} of a predictor on a pack.

    ms_*: median milliseconds an image, by itself and in batches of `batch` (no more than the pack has). memory*: peak
    bytes of one call, as HOW says.
    """
    batch_size = min(batch_size, len(pack))
    out: dict = {"batch": batch_size}
    for count, time_key, memory_key in ((1, "ms_one", "memory"), (batch_size, "ms_batched", "memory_batched")):
        rows = np.arange(count)
        batch = Batch(*(x.to(device) for x in pack.lab(rows)))
        if count == 1:
            with FlopCounterMode(display=False) as counter:
                predict(batch, rows)
            out["multiply_adds"] = counter.get_total_flops() // 2
        out[memory_key] = _peak(lambda batch=batch, rows=rows: predict(batch, rows), device)
        out[time_key] = _median_ms(lambda batch=batch, rows=rows: predict(batch, rows), device) / count
    return out


def _peak(call: Callable[[], object], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with _Alive() as alive:
        call()
    return alive.peak


def _median_ms(call: Callable[[], object], device: torch.device) -> float:
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    times: list[float] = []
    call()  # warms up
    wait()
    while len(times) < 3 or (len(times) < _REPEATS and sum(times) < _SECONDS):
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
