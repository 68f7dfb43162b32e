"""Choice of device and precision."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from common.utils.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda or mps. Raises UserError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name):
        have = ", ".join(k for k, v in there.items() if v)
        raise UserError(f"device is {name}, which this machine does not have: expected auto, {have}")
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # set by torchrun
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve auto to bf16 if the device has hardware for it, else to fp32. Other names are returned unchanged."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the GPU or the CPU is exhausted."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error)  # the message of the CPU's allocator


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def machine() -> str:
    """The name of the GPU, or the number of CPU threads, for model cards."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"
