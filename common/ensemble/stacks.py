"""Rows `stack(a,b)` of a table: a stack is trained once, and then loaded from its run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from common.checkpoint import installed_models, read_card, weights_file
from common.colorizer import Colorizer
from common.data.batches import training_packs
from common.data.fingerprints import resembling
from common.data.packing import Pack
from common.data.sources import list_photos
from common.evaluation.options import MeasureOptions
from common.evaluation.rows import Row, Rows, open_measured
from common.registry import load_colorizer
from common.training.config import TrainConfig
from common.training.parser import config_from_dict
from common.training.run_dir import is_finished
from common.utils.errors import UserError
from common.utils.expressions import Expression, parse_ensemble, split_title
from common.utils.progress import Progress

STACKS = Path("runs/stacks")


@dataclass(frozen=True)
class StackOptions:
    """How stacks are trained.

    Attributes:
        measured: which photographs are measured; a stack must not be trained on them. Its `cache` and `device` are
            also used for training.
        folder: parent of the stacks' run folders.
        source: training photographs. None: those that the first member was trained on.
        budget: training time of each stack, as in `90s` or `2m`.
    """

    measured: MeasureOptions
    folder: Path = STACKS
    source: str | None = None
    budget: str = "2m"


class ResolvedRows(NamedTuple):
    """Names of rows without stacks, and one message for each row whose stack could not be trained."""

    names: list[str]
    failures: list[str]


def resolve_stacks(names: Sequence[str], options: StackOptions, progress: Progress) -> ResolvedRows:
    """Train every `stack(...)` in the names of models, also inside `mean(...)`, and replace it by its run folder.

    A stack without a title gets one from its members' names: `stack(a,b)=FOLDER`. Other names do not change. A row
    whose stack cannot be trained is dropped and reported.
    """
    out = ResolvedRows([], [])
    for name in names:
        title, text = split_title(name)
        try:
            expression = parse_ensemble(text)
            out.names.append(_resolved(title, expression, options, progress)
                             if expression and expression.contains("stack") else name)  # fmt: skip
        except UserError as error:
            out.failures.append(str(error))
    return out


def _resolved(title: str, expression: Expression, options: StackOptions, progress: Progress) -> str:
    expression.check_members()
    resolved = _without_stacks(expression, options, progress)
    if expression.kind == "stack":
        title = title or _trained_title(resolved)
    return f"{title}={resolved}" if title else resolved


def _without_stacks(expression: Expression, options: StackOptions, progress: Progress) -> str:
    """Train every stack in an expression, and return the name that `load_colorizer` accepts for it."""
    names = [_without_stacks(m, options, progress) if isinstance(m, Expression) else m for m in expression.members]
    if expression.kind == "mean":
        return str(Expression("mean", tuple(names)))
    return str(train_stack(names, options, progress))


def train_stack(names: Sequence[str], options: StackOptions, progress: Progress) -> Path:
    """Train a stack, or resume its training; a finished one is reused. Returns its run folder.

    The folder's name depends on the members' weights and on the training photographs.

    Args:
        names: of the members, as `load_colorizer` accepts them.

    Raises UserError if a member cannot be loaded, or if the training photographs are missing or overlap with those that
    are measured.
    """
    members = [load_colorizer(name) for name in names]
    cards = [member.card for member in members]
    title = stack_title(cards)
    config = _config(title, names, cards, options)
    packs = training_packs(config.data, progress)
    _check_overlap(title, packs[0], members, options.measured)
    folder = options.folder / _folder_name(names, cards, config, packs[0])
    config = replace(config, loop=replace(config.loop, run=str(folder)))
    if is_finished(config, *packs):
        return folder
    contents = {(card.get("trained_on") or {}).get("content") for card in cards}
    if len(contents) > 1 and not options.source:
        progress.say(
            f"{title}: its members were trained on different photographs; it is trained on {config.data.train}"
        )
    progress.say(f"{title}: training for {options.budget} in {folder}")

    from common.training.loop import train

    return train(config, progress)


def stack_title(cards: Sequence[dict]) -> str:
    """The title of a stack, `stack(a,b)`, from the cards of its members."""
    return f"stack({','.join(str(card.get('name', '?')) for card in cards)})"


def _trained_title(folder: str) -> str:
    """The title of a trained stack, from the card in its run folder."""
    return stack_title(read_card(weights_file(folder))["model"]["members"])


def _config(title: str, names: Sequence[str], cards: Sequence[dict], options: StackOptions) -> TrainConfig:
    """The options of experiments/ensemble/stack.yaml, for these members."""
    data = (cards[0].get("config") or {}).get("data") or {}
    source, cache = options.source or data.get("train"), options.measured.cache
    try:
        list_photos(source or "", cache)
    except UserError:
        if options.source:
            raise
        raise UserError(
            f"{title} is trained on the photographs of {cards[0].get('name')}, and {source or 'that source'} is not on"
            " this machine: name training photographs with --stack_data"
        ) from None
    return config_from_dict({
        "family": "ensemble",
        "model": {"kind": "stack", "members": [_absolute(name) for name in names]},
        "optim": {"lr": 0.001, "clip": 1, "ema": 0.99},
        "data": {
            "train": source, "size": max(card["size"] for card in cards),
            "val_fraction": data.get("val_fraction", 0.1), "margin": data.get("margin", 0.125), "cache": cache,
        },
        "batch_size": 32, "sample_every": 0, "device": options.measured.device, "budget": options.budget,
    })  # fmt: skip


def _check_overlap(title: str, train: Pack, members: Sequence[Colorizer], measured: MeasureOptions) -> None:
    """Raise UserError if a training photograph, or a copy of it, would be measured."""
    rows = {str(i): Row(str(i), card=m.card, fingerprints=m.fingerprints) for i, m in enumerate(members)}
    pack = open_measured(measured, Rows(rows), Progress(quiet=True))
    if both := int(resembling(pack.fingerprints[pack.indices], train.fingerprints[train.color_indices]).sum()):
        raise UserError(
            f"{title} would be trained on {both} of the {len(pack)} measured photographs of {measured.data}:"
            " measure others, for example with --split val, or name other training photographs with --stack_data"
        )


def _folder_name(names: Sequence[str], cards: Sequence[dict], config: TrainConfig, train: Pack) -> str:
    parts = [train.manifest["content"], config.data.train, config.data.size, config.data.val_fraction]
    parts += [[_absolute(name), _digests(name)] for name in names]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    words = ["".join(c if c.isalnum() else "_" for c in card["name"]) for card in cards]
    return "-".join(["stack", *words])[:80] + f"-{key}"


def _absolute(name: str) -> str:
    """The name of a member with absolute paths; names of installed models do not change."""
    if expression := parse_ensemble(name):
        return str(expression.replaced(_absolute))
    return name if not Path(name).exists() and name in installed_models() else str(Path(name).resolve())


def _digests(name: str) -> list:
    """SHA-256 digests of the weights files of a member, nested as the member is."""
    if expression := parse_ensemble(name):
        return [_digests(str(member)) for member in expression.members]
    return [hashlib.sha256(weights_file(name).read_bytes()).hexdigest()]
