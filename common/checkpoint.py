"""Published weights: safetensors files with one JSON card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.colorizer import Colorizer
from common.utils.errors import UserError, near, one_sentence
from common.utils.files import write_atomically

WEIGHTS, BEST = "weights.safetensors", "best.safetensors"
# Types of the entries of a card; those that may be None may be missing, too.
_CARD: dict[str, type | tuple[type, ...]] = {
    "family": str, "model": dict, "name": (str, type(None)), "trained_on": (dict, type(None)),
    "config": (dict, type(None)), "validation": (dict, type(None)), "parameters": (int, type(None)),
    **dict.fromkeys(("steps", "images", "seconds"), (int, float, type(None))),
}  # fmt: skip
_FINGERPRINTS = "trained_on.fingerprints"  # a tensor beside those of the state


def only_trains(colorizer: Colorizer, key: str) -> bool:
    """Whether an entry of the colorizer's state belongs to a network that only training needs."""
    return any(key == name or key.startswith(f"{name}.") for name in colorizer.training_only)


def published_state(colorizer: Colorizer) -> dict[str, Tensor]:
    """The state dict without the networks that only training needs."""
    return {key: value for key, value in colorizer.state_dict().items() if not only_trains(colorizer, key)}


def load_published(colorizer: Colorizer, state: dict[str, Tensor]) -> list[str]:
    """Load a `published_state` into a colorizer. If some tensors do not fit, load none and return their names."""
    own = published_state(colorizer)
    wrong = [key for key in own | state if key not in own or key not in state or own[key].shape != state[key].shape]
    if not wrong:
        colorizer.load_state_dict(state, strict=False)
    return wrong


def save_weights(path: Path, state: dict[str, Tensor], card: dict, fingerprints: np.ndarray | None = None) -> None:
    """Write published weights.

    state: the `published_state` of a colorizer. card: JSON-able metadata; `family`, `model` and `size` are needed to
    load the weights, the rest describes them (training set, steps, scores). fingerprints: uint8 [n, 16], of the
    training photographs; None if they are unknown. Raises UserError where the file cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    if fingerprints is not None:
        tensors[_FINGERPRINTS] = torch.from_numpy(np.ascontiguousarray(fingerprints))
    # safetensors writes several metadata keys in random order; with one key, equal weights give equal files
    write_atomically(path, lambda p: save_file(tensors, p, metadata={"card": json.dumps(card, sort_keys=True)}))


def weights_file(path: str | Path) -> Path:
    """Resolve a .safetensors file, a run folder that holds one, or the name of an installed model to a file.

    Raises UserError where there is none.
    """
    name, path = str(path), Path(path)
    if not path.exists() and name in installed_models():
        path = installed_models()[name]
    if path.is_dir():
        if not (path / WEIGHTS).exists():
            raise UserError(f"{path} holds no {WEIGHTS}: is it the folder of a run that was trained?")
        path = path / WEIGHTS
    if not path.exists():
        known = installed_models()
        names = f", or {' or '.join(known)}{near(name, known)}" if known else ""
        raise UserError(f"weights {path} do not exist: give a .safetensors file, a run folder{names}")
    return path


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict, np.ndarray | None]:
    """(tensors, card, fingerprints) of published weights; see `save_weights`. `path`: as for `weights_file`.

    Raises UserError where the file cannot be read, is damaged, or has no valid card.
    """
    path = weights_file(path)
    with _opened(path) as file:
        card = _checked_card(path, file.metadata())
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    fingerprints = state.pop(_FINGERPRINTS, None)
    if fingerprints is not None and (fingerprints.dtype != torch.uint8 or fingerprints.shape[1:] != (16,)):
        raise UserError(f"{path} has fingerprints of another form: it was written by another version")
    return state, card, None if fingerprints is None else fingerprints.numpy()


def read_card(path: Path) -> dict:
    """The card of published weights, without reading the tensors. Raises UserError as `read_weights`."""
    with _opened(path) as file:
        return _checked_card(path, file.metadata())


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read ({one_sentence(error)}): check its permissions") from None
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole .safetensors file ({one_sentence(error)}): copy it again") from None


def _checked_card(path: Path, metadata: dict[str, str] | None) -> dict:
    try:
        card = json.loads((metadata or {}).get("card", "null"))
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict) or "family" not in card or "model" not in card:
        raise UserError(f"{path} has no card of this project: it was not trained here")
    for key, kind in _CARD.items():
        if not isinstance(card.get(key), kind):
            raise UserError(f"the card of {path} has {key} {card.get(key)!s:.60}: it was not written by this project")
    size = card.get("size")
    if type(size) is not int or not 16 <= size <= 4096:
        raise UserError(f"the card of {path} has size {size!s:.60}: expected a whole number of pixels from 16 to 4096")
    return card


def installed_models() -> dict[str, Path]:
    """Name -> file of the weights that are part of this installation."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}


def published_parameter_count(colorizer: Colorizer) -> int:
    """Number of parameters that colorizing needs."""
    return sum(p.numel() for key, p in colorizer.named_parameters() if not only_trains(colorizer, key))


def parameter_count(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of the names and values of a module's parameters and persistent buffers, as hexadecimal digits."""
    content = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        content.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
