"""The cost of a colorizer, measured on this machine: multiply-adds, time per image, and memory."""

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

_SECONDS = 1.0  # time limit for the repetitions of one timing
_REPEATS = 9

HOW = (
    "Multiply-adds are counted over the convolutions and matrix products of one image. Time is the median of repeated"
    " calls of the network, from L on the device to ab on the device, without reading or writing files. Memory is the"
    " peak during one such call, without weights and input: {memory}."
)
MEMORY_CPU = "the storages that torch's operators return, without temporary memory inside operators"
MEMORY_CUDA = "the memory that torch's GPU allocator had allocated"


class _LiveStorages(TorchDispatchMode):
    """Tracks the bytes of the storages that operators create, until they are freed."""

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
                if storage._cdata not in inputs:  # a view of an input is no new memory
                    self.known.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.known = {key: (ref, size) for key, (ref, size) in self.known.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.known.values()))
        return out


@torch.no_grad()
def measure_cost(predict: Predict, pack: Pack, device: torch.device, batch_size: int) -> dict:
    """Measure a predictor on the first photographs of a pack. HOW describes the method.

    Returns "multiply_adds" of one image; "ms_one" and "ms_batched", median milliseconds per image, alone and in batches
    of "batch" (at most the size of the pack); "memory" and "memory_batched", peak bytes of such calls.
    """
    batch_size = min(batch_size, len(pack))
    out: dict = {"batch": batch_size}
    for count, time_key, memory_key in ((1, "ms_one", "memory"), (batch_size, "ms_batched", "memory_batched")):
        indices = np.arange(count)
        batch = Batch(*(x.to(device) for x in pack.lab(indices)))
        if count == 1:
            with FlopCounterMode(display=False) as counter:
                predict(batch, indices)
            out["multiply_adds"] = counter.get_total_flops() // 2
        out[memory_key] = _peak(lambda batch=batch, indices=indices: predict(batch, indices), device)
        out[time_key] = _median_ms(lambda batch=batch, indices=indices: predict(batch, indices), device) / count
    return out


def _peak(call: Callable[[], object], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveStorages() as live:
        call()
    return live.peak


def _median_ms(call: Callable[[], object], device: torch.device) -> float:
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    times: list[float] = []
    call()  # warm-up
    wait()
    while len(times) < 3 or (len(times) < _REPEATS and sum(times) < _SECONDS):
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
