"""Suites of experiments: one YAML that names what is trained, on which photographs, and what is measured.

The runs are trained one after the other in this process. The engine saves and resumes by itself, a signal reaches it
without detours, libraries are loaded and packs opened once, and a run that diverges raises an error that can be told.
A process for each would protect only against a crash of the interpreter, after which the same command goes on anyway.
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from common.data.batches import DataConfig, training_packs
from common.ensemble.expressions import Expression, parse_ensemble
from common.evaluation.evaluate import TRIVIAL, pick_metrics
from common.evaluation.rows import split_title
from common.training.config import RunConfig, TrainConfig, load_config, seconds
from common.training.parser import parse_config
from common.training.run_dir import is_finished
from common.utils.device import out_of_memory
from common.utils.errors import UserError, near
from common.utils.progress import Progress, clock

_KEYS = ("data", "experiments", "rows", "metrics", "out", "runs")
_ENTRY = ("config", "name", "seeds")
_GROUPS = ("data", "augment", "optim", "model")


@dataclass
class Experiment:
    """One run of a suite: its name, the group of seeds that it belongs to, its file, and options that win over that."""

    name: str
    group: str
    file: Path
    options: dict[str, object]


@dataclass
class Suite:
    """A suite as its file says it."""

    path: Path
    experiments: list[Experiment]
    data: dict = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    metrics: list[str] | None = None
    out: Path | None = None
    runs: Path = Path("runs")

    def meet(self, args: argparse.Namespace) -> None:
        """Put the suite and a command line (`Parser.add_suite`) together: what stands on the command line wins.

        `--train` replaces the training photographs, and with them the validation's; `--data` is what is measured and
        the validation's. Raises UserError where neither says where results go.
        """
        if args.train:
            self.data.pop("val", None)
        given = {"train": args.train, "val": args.data, "size": args.size, "cache": args.cache}
        self.data |= {key: value for key, value in given.items() if value is not None}
        args.data = self.data.get("val") or self.data.get("train") or DataConfig.train
        args.size, args.cache = self.data.get("size"), self.data.get("cache")
        args.metrics = args.metrics or self.metrics
        args.out = args.out or self.out
        args.stacks = args.stacks or self.runs / "stacks"
        if not args.out:
            raise UserError(f"suite {self.path} has no 'out', a folder for the results: give --out")


@dataclass
class Trained:
    """Rows for `load_rows`, NAME=PATH each, and what could not be trained."""

    rows: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def read_suite(path: str | Path) -> Suite:
    """Read a suite.

    Raises UserError where the file is none, and names the key that is unknown or holds what it cannot.
    """
    path = Path(path)
    values = load_config(path)
    for key in values:
        if key not in _KEYS:
            raise UserError(f"suite {path} has a key '{key}': it takes {', '.join(_KEYS)}{near(str(key), _KEYS)}")
    data = _typed(path, "data", values.get("data") or {}, dict, "a mapping such as {train: demo, size: 64}")
    known = [f.name for f in fields(DataConfig)]
    for key in data:
        if key not in known:
            raise UserError(f"suite {path} has a key 'data.{key}': it takes {', '.join(known)}{near(str(key), known)}")
    entries = _typed(path, "experiments", values.get("experiments") or [], list, "a list of {config: FILE}")
    if not entries:
        raise UserError(f"suite {path} has no experiments: it takes a list of {{config: FILE}}")
    runs = Path(_typed(path, "runs", values.get("runs", "runs"), str, "a folder"))
    experiments = [run for entry in entries for run in _experiments(path, entry)]
    names = [experiment.name for experiment in experiments]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"suite {path} has two experiments called {twice}: give one of them another 'name'")
    metrics = _words(path, "metrics", values.get("metrics"))
    pick_metrics(metrics)
    out = values.get("out")
    suite = Suite(
        path, experiments, data, _words(path, "rows", values.get("rows")) or [], metrics,
        out and Path(_typed(path, "out", out, str, "a folder")), runs,
    )  # fmt: skip
    for row in suite.rows:
        parse_ensemble(split_title(row)[1])
    return suite


def train_suite(
    suite: Suite,
    budget: str | None = None,
    overrides: dict[str, object] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train what is missing of a suite and go on with what was cut off; returns the rows of its table.

    budget: time for each run, beside the steps that its own file says; the first of them ends it. overrides: dotted
    options of scripts.train for every run, which win over the suite's. All configurations are checked before the first
    run begins. A run that fails is told and the others go on. Raises UserError for options that cannot be, and what
    `common.training.loop.train` raises where it is asked to stop.
    """
    progress, done = progress or Progress(), Trained()
    configs = suite_configs(suite, budget, overrides)
    for count, (name, config) in enumerate(configs.items(), 1):
        try:
            _train(config, f"{name}, {count} of {len(configs)}", progress)
        except UserError as error:
            done.failures.append(f"{name}: {error}")
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            done.failures.append(f"{name}: memory does not suffice for it: give it a smaller batch_size")
        else:
            done.rows.append(f"{name}={config.loop.run}")
            continue
        progress.say(f"{done.failures[-1]}; the others go on")
    groups: dict[str, list[str]] = {}
    for experiment in suite.experiments:
        groups.setdefault(experiment.group, []).append(experiment.name)
    folders = dict(row.split("=", 1) for row in done.rows)
    for row in suite.rows:
        try:
            done.rows += _expanded(row, folders, groups)
        except UserError as error:
            done.failures.append(str(error))
    return done


def suite_configs(
    suite: Suite, budget: str | None = None, overrides: dict[str, object] | None = None
) -> dict[str, TrainConfig]:
    """The whole configuration of every run by its name. Raises UserError, with the run's name, for what cannot be."""
    seconds(budget)
    more = _flags(overrides or {}) + ([f"--budget={budget}"] if budget else [])
    return {experiment.name: _config(suite, experiment, more) for experiment in suite.experiments}


def trained_suite(args: argparse.Namespace, progress: Progress) -> Trained:
    """The suite of a command line (`Parser.add_suite`), trained; its options are completed by what the suite says.

    Rows of the command line come after the suite's.
    """
    suite = read_suite(args.suite)
    suite.meet(args)
    done = train_suite(suite, args.budget, {"device": args.device} if args.device != "auto" else {}, progress)
    done.rows += args.runs
    return done


def _train(config: TrainConfig, title: str, progress: Progress) -> None:
    packs = training_packs(config.data, progress)
    if is_finished(config, packs[0]):
        progress.say(f"{title}: trained already, in {config.loop.run}")
        return
    budget = f", for {clock(seconds(config.loop.budget))} of training at most" if config.loop.budget else ""
    progress.say(f"{title}: into {config.loop.run}{budget}")

    from common.training.loop import train

    try:
        train(config, progress)
    finally:
        gc.collect()  # networks and optimizers hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _experiments(path: Path, entry: object) -> list[Experiment]:
    """An entry of the suite as runs, one for each seed."""
    entry = _typed(path, "experiments", entry, dict, "entries such as {config: experiments/baselines/cnn.yaml}")
    if not isinstance(entry.get("config"), str):
        raise UserError(f"suite {path} has an experiment without 'config': it takes the file of an experiment")
    file = Path(entry["config"])
    if not file.exists():
        raise UserError(f"suite {path} names the config {file}, which does not exist: paths are from where it is run")
    name = str(entry.get("name", file.stem))
    if not name or set(name) & set("/=,() ") or name in TRIVIAL:
        raise UserError(f"suite {path} calls an experiment '{name}': it takes a word without / = , ( ) or spaces")
    seeds = entry.get("seeds")
    whole = isinstance(seeds, list) and seeds and all(type(s) is int and s >= 0 for s in seeds)
    if "seeds" in entry and not (whole and len(set(seeds)) == len(seeds)):
        raise UserError(f"suite {path} gives {name} the seeds {seeds}: it takes a list of different whole numbers")
    options = {key: value for key, value in entry.items() if key not in _ENTRY}
    takes = [*_ENTRY, *_GROUPS, "family", *(f.name for f in fields(RunConfig))]
    for key in options:  # dotted ones are looked at with all others
        if "." not in str(key) and key not in takes:
            raise UserError(
                f"suite {path} gives {name} a key '{key}'{near(str(key), takes)}: it takes {', '.join(_ENTRY)} and"
                " options of scripts.train"
            )
    if "run" in options:
        raise UserError(f"suite {path} gives {name} a key 'run': its folder is the suite's 'runs' and its own 'name'")
    if not seeds:
        return [Experiment(name, name, file, options)]
    return [Experiment(f"{name}-seed{seed}", name, file, options | {"seed": seed}) for seed in seeds]


def _config(suite: Suite, experiment: Experiment, more: list[str]) -> TrainConfig:
    argv = [f"--config={experiment.file}", *_flags({"data": suite.data}), *_flags(experiment.options)]
    try:
        return parse_config([*argv, *more, f"--run={suite.runs / experiment.name}"], "", "suite")
    except UserError as error:
        raise UserError(f"suite {suite.path}, {experiment.name}: {error}") from None


def _flags(options: dict[str, object], prefix: str = "") -> list[str]:
    """Options as scripts.train takes them; the groups of a config and of its model are opened."""
    flags = []
    for key, value in options.items():
        if isinstance(value, dict) and (f"{prefix}{key}" in _GROUPS or f"{prefix}{key}".startswith("model.")):
            flags += _flags(value, f"{prefix}{key}.")
        else:
            flags.append(f"--{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return flags


def _expanded(row: str, folders: dict[str, str], groups: dict[str, list[str]]) -> list[str]:
    """A row with the suite's own names as folders; the name of a group of seeds stands for all its runs."""
    title, text = split_title(row)
    expression = parse_ensemble(text)
    if not expression:  # the suite's own are rows already
        return [row] if text not in folders and text not in groups else []

    def members(of: Expression) -> Expression:
        out: list[str | Expression] = []
        for member in of.members:
            if isinstance(member, Expression):
                out.append(members(member))
                continue
            runs = groups.get(member) or [member]
            for name in runs:
                if member in groups and name not in folders:
                    raise UserError(f"row {row} is left out, as {name} was not trained to its end")
                out.append(folders.get(name, name))
        return Expression(of.kind, tuple(out))

    return [f"{title or text}={members(expression)}"]


def _typed(path: Path, key: str, value: object, kind: type, takes: str):
    if not isinstance(value, kind):
        raise UserError(f"suite {path} has {key} {value}: it takes {takes}")
    return value


def _words(path: Path, key: str, value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"suite {path} has {key} {value}: it takes a list of names")
    return value
