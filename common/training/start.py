"""A run that starts from published weights: which options come from their card, and what is recorded of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from common.checkpoint import load_published, read_weights, weights_file
from common.colorizer import Colorizer
from common.registry import starting_model
from common.training.config import OptimConfig, TrainConfig, load_config
from common.training.run_dir import flat
from common.training.state import STATE
from common.utils.errors import UserError

LR_RATIO = 0.3  # default learning rate, relative to that of the training of the weights
_RECORDED = ("name", "family", "steps", "images", "trained_on", "base")  # of the card of the weights


def starting_values(init: str, run_dir: Path, fresh: bool) -> dict:
    """Default options, nested as in a config file, of a run that starts from the published weights `init`.

    The learning rate is `LR_RATIO` times that of the training of the weights, or equal to it if that started from
    weights too. If `run_dir` has a state that started from `init`, its options are returned, and `init` is not read.
    Raises UserError where the weights cannot be read.
    """
    saved = run_dir / "config.yaml"
    if not fresh and (run_dir / STATE).exists() and saved.exists():
        config = load_config(saved)
        if config.get("init") == init:
            return {key: config[key] for key in ("family", "model", "data", "augment", "optim", "batch_size")}
    card = read_weights(init)[1]
    config = card.get("config", {})
    optim = {"lr": OptimConfig.lr} | config.get("optim", {})
    optim["lr"] *= 1 if config.get("init") else LR_RATIO
    data = {"size": card["size"]} | {k: v for k, v in config.get("data", {}).items() if k == "margin"}
    values = {"family": card["family"], "model": starting_model(card), "data": data, "optim": optim}
    return values | {key: config[key] for key in ("augment", "batch_size") if key in config}


def load_start(colorizer: Colorizer, config: TrainConfig) -> dict:
    """Load the weights `config.loop.init` into a new colorizer.

    Returns what its own weights record of them, in types that `state.pt` can hold: {"card": a part of their card,
    "fingerprints": of their training photographs, uint8 Tensor [n, 16], or None if these are unknown}. Raises UserError
    where they do not fit, and names the options that differ from those of the weights.
    """
    init = str(config.loop.init)
    state, card, fingerprints = read_weights(init)
    if wrong := load_published(colorizer, state):
        theirs, ours = (flat(model, "model.") for model in (starting_model(card), config.model))
        other = [f"{k} is {v} (theirs: {theirs[k]})" for k, v in ours.items() if k in theirs and v != theirs[k]]
        raise UserError(
            f"the weights {init} do not fit this network ({len(wrong)} tensors, such as {wrong[0]}): "
            + (f"leave out what changes it, {', '.join(other)}" if other else "they were written by another version")
        )
    colorizer.hooks.start_from(card)
    record = {key: card[key] for key in _RECORDED if key in card}
    record["sha256"] = hashlib.sha256(weights_file(init).read_bytes()).hexdigest()
    return {"card": record, "fingerprints": None if fingerprints is None else torch.from_numpy(fingerprints)}


def with_base(fingerprints: np.ndarray, base: dict) -> np.ndarray | None:
    """The fingerprints of training photographs, uint8 [n, 16], together with those of what `load_start` returned.

    None if these are unknown.
    """
    theirs = base["fingerprints"]
    return None if theirs is None else np.unique(np.concatenate([fingerprints, theirs.numpy()]), axis=0)
