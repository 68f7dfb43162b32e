"""The exact training state of a run, as one file that is replaced atomically and ends in a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from common.utils.errors import UserError, one_sentence
from common.utils.files import write_atomically

STATE = "state.pt"
_VERSION, _WITHOUT_CHECKSUM = 4, 3
_DIGEST_BYTES = 32
_INSTEAD = "restore it from a copy, or use another --run"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "step": int, "last_step": int, "planned_for": (str, type(None)), "eval_every": int, "seconds": (int, float),
    "low_color": int, "scores": dict, "plateau": dict, "content": str, "weights": dict, "ema": dict,
    "optimizers": dict, "training": list,
}  # fmt: skip


def save_state(run_dir: Path, state: dict) -> None:
    """Write the training state, which holds plain types and tensors only."""

    def write(path: Path) -> None:
        torch.save(state | {"version": _VERSION}, path)
        digest = _digest(path, path.stat().st_size)
        with open(path, "ab") as file:
            file.write(digest)  # torch.load ignores what follows its archive

    write_atomically(run_dir / STATE, write)


def read_state(run_dir: Path) -> dict | None:
    """The training state of a run, on the CPU, or None where none was saved.

    Raises UserError where the file cannot be read, is damaged, or was not written by a run of this version.
    """
    path = run_dir / STATE
    try:
        if not path.exists():
            return None
        whole = _ends_in_digest(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError) as error:
        raise UserError(f"{path} cannot be read ({one_sentence(error)}): make it readable, then run again") from None
    except Exception as error:  # unpickling damaged files raises nearly every type
        raise UserError(f"{path} is damaged ({one_sentence(error)}): {_INSTEAD}") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version not in (_VERSION, _WITHOUT_CHECKSUM):
        raise UserError(f"{path} was not written by a run of this version: {_INSTEAD}")
    if version == _VERSION and not whole:
        raise UserError(f"{path} is damaged (its checksum is wrong): {_INSTEAD}")
    for key, kind in _KINDS.items():
        if key in state and (not isinstance(state[key], kind) or (kind is int and state[key] < 0)):
            raise UserError(f"{path} was not written by a run (its '{key}' is of another kind): {_INSTEAD}")
    return state


@contextmanager
def restoring(run_dir: Path) -> Iterator[None]:
    """Context that uses what `read_state` returned. Raises UserError where that does not fit the run."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # torch and the families raise nearly every type
        raise UserError(f"{run_dir / STATE} does not fit this run ({one_sentence(error)}): {_INSTEAD}") from None


def check_tensors(saved: dict, own: dict[str, Tensor]) -> None:
    """Raise ValueError if the tensors of a saved state are not of the shapes and types of the run's own."""
    for key, value in own.items():
        shape, kind = tuple(saved[key].shape), saved[key].dtype
        if (shape, kind) != (tuple(value.shape), value.dtype):
            raise ValueError(f"{key} is {shape} {kind}, not {tuple(value.shape)} {value.dtype}")


def check_optimizer(saved: dict, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if a saved tensor is neither of the shape of its parameter nor a single number."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in saved["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameters[index].shape:
                shapes = f"{tuple(value.shape)}, not {tuple(parameters[index].shape)}"
                raise ValueError(f"{key} of parameter {index} is {shapes}")


def _ends_in_digest(path: Path) -> bool:
    size = path.stat().st_size - _DIGEST_BYTES
    if size < 0:
        return False
    with open(path, "rb") as file:
        file.seek(size)
        return file.read() == _digest(path, size)


def _digest(path: Path, size: int) -> bytes:
    """SHA-256 of the first `size` bytes of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (chunk := file.read(min(size, 1 << 20))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.digest()
