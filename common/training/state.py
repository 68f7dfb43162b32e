"""The exact training state of a run, as one file that is replaced atomically."""

from __future__ import annotations

from pathlib import Path

import torch

from common.utils.errors import UserError, one_sentence
from common.utils.files import write_atomically

STATE = "state.pt"
_VERSION = 3


def save_state(run_dir: Path, state: dict) -> None:
    """Write the training state, which holds plain types and tensors only."""
    write_atomically(run_dir / STATE, lambda path: torch.save(state | {"version": _VERSION}, path))


def read_state(run_dir: Path) -> dict | None:
    """The training state of a run, on the CPU, or None where none was saved.

    Raises UserError where the file is damaged or was written by another version.
    """
    path = run_dir / STATE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged files raises nearly every type
        raise UserError(f"{path} is damaged ({one_sentence(error)}): begin anew with --fresh true") from None
    if state.get("version") != _VERSION:
        raise UserError(f"{path} is of another version ({state.get('version')}): begin anew with --fresh true")
    return state
