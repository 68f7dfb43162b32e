"""Stacks as rows of a table: trained at their first use, by the one engine, on what their members learned from."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

from common.checkpoint import installed_models, weights_file
from common.data.batches import training_packs
from common.data.packing import Pack
from common.data.sources import list_photos
from common.ensemble.expressions import Expression, checked, parse_ensemble
from common.evaluation.options import MeasureOptions
from common.evaluation.rows import open_measured
from common.registry import load_colorizer
from common.training.config import TrainConfig
from common.training.parser import parse_config
from common.training.run_dir import is_finished
from common.utils.errors import UserError
from common.utils.progress import Progress

STACKS = Path("runs/stacks")
# How a stack is trained: a small network on few inputs, for minutes. As in experiments/ensemble/stack.yaml.
_RECIPE = ("--family=ensemble", "--model.kind=stack", "--optim.lr=0.001", "--optim.clip=1", "--optim.ema=0.99",
           "--batch_size=32", "--sample_every=0")  # fmt: skip


def without_stacks(expression: Expression, args: argparse.Namespace | None, progress: Progress) -> str:
    """An ensemble's name as `load_colorizer` takes it: each stack in it is trained, and named by its run folder.

    args: the options of `Parser.add_stacking`, and those that say what is measured (`Parser.add_measuring`). Raises
    UserError where a member cannot be read or a stack must not be trained.
    """
    checked(expression)
    names = [without_stacks(m, args, progress) if isinstance(m, Expression) else m for m in expression.members]
    if expression.kind == "mean":
        return str(Expression("mean", tuple(names)))
    if args is None:
        raise UserError(f"{expression} has to be trained first: name it as a row of scripts.compare")
    return str(train_stack(names, args, progress))


def train_stack(names: list[str], args: argparse.Namespace, progress: Progress) -> Path:
    """Train a stack of models, or go on with it; returns its run folder, which is its own for what it is made from.

    names: as `load_colorizer` takes them. It learns from the training photographs of its first member (or of
    `args.stack_data`), less a part that is held out for its log. Raises UserError where those are not here, or where
    some of them are measured.
    """
    cards = [load_colorizer(name).card for name in names]
    title = stack_title(cards)
    config = _config(title, names, cards, args)
    packs = training_packs(config.data, progress)
    _keep_apart(title, packs[0], cards, args)
    folder = (args.stacks or STACKS) / _folder_name(names, cards, config, packs[0])
    config = replace(config, loop=replace(config.loop, run=str(folder)))
    if is_finished(config, packs[0]):
        return folder
    contents = {(card.get("trained_on") or {}).get("content") for card in cards}
    if len(contents) > 1 and not args.stack_data:
        progress.say(f"{title}: its members learned from different photographs; it learns from {config.data.train}")
    progress.say(f"{title} is trained for {args.stack_budget}, into {folder}")

    from common.training.loop import train

    return train(config, progress)


def stack_title(cards: list[dict]) -> str:
    """What a stack is called: `stack(a,b)`, by its members' names."""
    return f"stack({','.join(str(card.get('name', '?')) for card in cards)})"


def _config(title: str, names: list[str], cards: list[dict], args: argparse.Namespace) -> TrainConfig:
    data = (cards[0].get("config") or {}).get("data") or {}
    source = args.stack_data or data.get("train")
    try:
        list_photos(source or "", args.cache)
    except UserError:
        if args.stack_data:
            raise
        raise UserError(
            f"{title} learns from what {cards[0].get('name')} was trained on, and {source or 'that'} is not here: name"
            " training photographs with --stack_data"
        ) from None
    members = json.dumps([_absolute(name) for name in names])
    options = {
        "model.members": members, "data.train": source, "data.size": max(card["size"] for card in cards),
        "data.val_fraction": data.get("val_fraction", 0.1), "data.margin": data.get("margin", 0.125),
        "data.cache": args.cache or "null", "device": args.device, "budget": args.stack_budget,
    }  # fmt: skip
    argv = [*_RECIPE, *(f"--{key}={value}" for key, value in options.items())]
    return parse_config(argv, "", "stack")


def _keep_apart(title: str, train: Pack, cards: list[dict], args: argparse.Namespace) -> None:
    """Raise UserError where a stack would learn from files that it is measured on, whatever their names."""
    options = MeasureOptions(args.data, args.split, args.val_fraction, args.size, cache=args.cache)
    measured = open_measured(options, {str(i): card for i, card in enumerate(cards)}, Progress(quiet=True))
    learned = {train.digests[row] for row in train.color_indices}
    if both := len(learned & set(measured.digests)):
        raise UserError(
            f"{title} would learn from {both} of the {len(measured)} photographs of {args.data} that are measured:"
            " measure others, as with --split val, or name other training photographs with --stack_data"
        )


def _folder_name(names: list[str], cards: list[dict], config: TrainConfig, train: Pack) -> str:
    made_from = [train.manifest["content"], config.data.train, config.data.size, config.data.val_fraction]
    made_from += [[_absolute(name), _digests(name)] for name in names]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]
    return "-".join(["stack", *("".join(c if c.isalnum() else "_" for c in card["name"]) for card in cards)])[:80] + (
        f"-{key}"
    )


def _absolute(name: str) -> str:
    """A member's name that means the same from every folder."""
    if expression := parse_ensemble(name):
        return str(expression.replaced(_absolute))
    return name if not Path(name).exists() and name in installed_models() else str(Path(name).resolve())


def _digests(name: str) -> list:
    if expression := parse_ensemble(name):
        return [_digests(str(member)) for member in expression.members]
    return [hashlib.sha256(weights_file(name).read_bytes()).hexdigest()]
