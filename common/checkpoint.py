"""Training state, exact and atomic; published weights, safetensors with one JSON card."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.colorizer import Colorizer, unwrap
from common.utils.errors import UserError, near, one_sentence
from common.utils.files import write_atomically

STATE, WEIGHTS, BEST = "state.pt", "weights.safetensors", "best.safetensors"
_STATE_VERSION = 2


def only_trains(colorizer: Colorizer, key: str) -> bool:
    """Whether an entry of the colorizer's state belongs to a network that only training needs."""
    return any(key == name or key.startswith(f"{name}.") for name in colorizer.training_only)


def bare_state_dict(colorizer: Colorizer) -> dict[str, Tensor]:
    """The colorizer's state, with the names it has outside of any DistributedDataParallel."""
    return _bare(colorizer, colorizer.state_dict())


def _bare(colorizer: Colorizer, named: dict[str, Tensor]) -> dict[str, Tensor]:
    wrapped = {name for name, network in colorizer.networks().items() if unwrap(network) is not network}
    return {
        key.replace(".module.", ".", 1) if key.split(".", 1)[0] in wrapped else key: value
        for key, value in named.items()
    }


def load_bare_state_dict(colorizer: Colorizer, state: dict[str, Tensor]) -> None:
    """The reverse of `bare_state_dict`, or of a part of it, exact in shapes."""
    own = dict(zip(bare_state_dict(colorizer), colorizer.state_dict().values(), strict=True))
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def published_state(colorizer: Colorizer) -> dict[str, Tensor]:
    """`bare_state_dict` without what only training needs."""
    return {key: value for key, value in bare_state_dict(colorizer).items() if not only_trains(colorizer, key)}


class Ema:
    """Exponential moving average of every floating-point tensor of a colorizer's state that is not for training only.

    The decay begins low, min(decay, (1 + t) / (10 + t)), so that the average forgets the first weights.
    """

    def __init__(self, colorizer: Colorizer, decay: float) -> None:
        self.decay = decay
        self.average = {k: v.detach().clone() for k, v in published_state(colorizer).items()} if decay else {}

    @torch.no_grad()
    def update(self, colorizer: Colorizer, step: int) -> None:
        """Take in the weights after a step."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        floats, news = [], []
        for key, value in published_state(colorizer).items():
            if value.is_floating_point():
                floats.append(self.average[key])
                news.append(value)
            else:
                self.average[key].copy_(value)
        torch._foreach_lerp_(floats, news, 1 - decay)

    def state(self, colorizer: Colorizer) -> dict[str, Tensor]:
        """The averaged state where there is one, else the colorizer's own: what is measured and published."""
        return self.average if self.decay else published_state(colorizer)


class averaged_weights:
    """Context in which the colorizer is in eval mode and holds the averaged weights."""

    def __init__(self, colorizer: Colorizer, ema: Ema) -> None:
        self.colorizer, self.ema = colorizer, ema

    def __enter__(self) -> Colorizer:
        if self.ema.decay:
            self.own = {k: v.clone() for k, v in published_state(self.colorizer).items()}
            load_bare_state_dict(self.colorizer, self.ema.average)
        return self.colorizer.eval()

    def __exit__(self, *exc: object) -> None:
        if self.ema.decay:
            load_bare_state_dict(self.colorizer, self.own)
        self.colorizer.train()


def save_state(run_dir: Path, state: dict) -> None:
    """Write the training state of a run: plain types and tensors only."""
    write_atomically(run_dir / STATE, lambda p: torch.save(state | {"version": _STATE_VERSION}, p))


def read_state(run_dir: Path) -> dict | None:
    """The training state of a run, on the CPU, or None where it has none yet. Raises UserError for a damaged one."""
    path = run_dir / STATE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged files raises nearly every type
        raise UserError(f"{path} is damaged ({one_sentence(error)}): begin anew with --fresh true") from None
    if state.get("version") != _STATE_VERSION:
        raise UserError(f"{path} is of another version ({state.get('version')}): begin anew with --fresh true")
    return state


def save_weights(path: Path, state: dict[str, Tensor], card: dict) -> None:
    """Write weights for use.

    state: `published_state` of a colorizer, or its average. card: JSON-able: `family`, `model`, `size`, and what a
    reader wants to know (training set, steps, scores).
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    # one key: several would be written in an order that changes from save to save
    write_atomically(path, lambda p: save_file(tensors, p, metadata={"card": json.dumps(card, sort_keys=True)}))


def weights_file(path: str | Path) -> Path:
    """The file that is meant by a .safetensors file, a run folder that holds one, or an installed model's name.

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


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, card) of published weights, as `weights_file` finds them."""
    path = weights_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("card", "null"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no whole .safetensors file: give a run's weights, or copy them again") from error
    if not isinstance(card, dict) or "family" not in card or "model" not in card:
        raise UserError(f"{path} has no card of this project: it was not trained here")
    return state, card


def read_card(path: Path) -> dict:
    """What published weights say of themselves, without reading them."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["card"])


def installed_models() -> dict[str, Path]:
    """Name -> weights of the models that come with this installation."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}


def published_parameter_count(colorizer: Colorizer) -> int:
    """Number of learnable values that colorizing needs."""
    named = _bare(colorizer, dict(colorizer.named_parameters()))
    return sum(p.numel() for key, p in named.items() if not only_trains(colorizer, key))


def parameter_count(network: nn.Module) -> int:
    """Number of learnable values."""
    return sum(p.numel() for p in network.parameters())
