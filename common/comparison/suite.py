"""Suites of experiments: a YAML file that names which runs are trained, on which photographs, and what is measured.

The runs are trained one after the other in this process: a run that fails raises an error that is reported, and the
same command resumes what was interrupted.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from common.data.batches import DataConfig, training_packs
from common.data.sources import without_shares
from common.evaluation.evaluate import TRIVIAL, pick_metrics
from common.training.config import TrainConfig, load_config, seconds
from common.training.parser import config_from_dict
from common.training.run_dir import is_finished
from common.utils.clock import clock
from common.utils.device import out_of_memory
from common.utils.errors import UserError, near
from common.utils.expressions import Expression, parse_ensemble, split_title
from common.utils.progress import Progress

_KEYS = ("data", "experiments", "rows", "metrics", "out", "runs")
_ENTRY = ("config", "name", "seeds")
_GROUPS = ("data", "augment", "optim", "model")


@dataclass(frozen=True)
class Experiment:
    """One run of a suite.

    Attributes:
        name: of the run's folder and of its row.
        group: name of the experiment, which runs with different seeds share.
        file: its YAML file.
        options: of scripts.train, nested or dotted; they override the file's.
    """

    name: str
    group: str
    file: Path
    options: dict[str, object]


@dataclass(frozen=True)
class Suite:
    """The contents of a suite's file.

    Attributes:
        path: of the file.
        experiments: the runs.
        data: options of `DataConfig` for every run.
        rows: further rows of the table, such as `mean(a,b)` of the suite's own names.
        metrics: names of metrics. None: the default ones.
        out: folder of the results.
        runs: parent of the run folders.
    """

    path: Path
    experiments: list[Experiment]
    data: dict = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    metrics: list[str] | None = None
    out: Path | None = None
    runs: Path = Path("runs")

    @property
    def measured_source(self) -> str:
        """Source of the measured photographs: that for validation if one is given, else that for training."""
        return without_shares(self.data.get("val") or self.data.get("train") or DataConfig.train)

    def overridden(
        self, *, train: str | None = None, data: str | None = None, size: int | None = None, cache: str | None = None,
        metrics: Sequence[str] | None = None, out: Path | None = None,
    ) -> Suite:  # fmt: skip
        """A copy in which the given values replace those of the file.

        train: source of the training photographs; the file's validation source is then dropped, too. data: source that
        is measured and used for validation. Raises UserError if no folder for the results is given.
        """
        if not (out or self.out):
            raise UserError(f"suite {self.path} has no 'out', a folder for the results: give --out")
        given = {"train": train, "val": data, "size": size, "cache": cache}
        own = {key: value for key, value in self.data.items() if not (train and key == "val")}
        merged = own | {key: value for key, value in given.items() if value is not None}
        return replace(self, data=merged, metrics=list(metrics or self.metrics or ()) or None, out=out or self.out)


@dataclass
class TrainedSuite:
    """Rows for `load_rows`, as NAME=PATH, and one sentence for each run or row that failed."""

    rows: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def read_suite(path: str | Path) -> Suite:
    """Read a suite.

    Raises UserError if the file cannot be read, and for an unknown key or a bad value, which the message names.
    """
    path = Path(path)
    values = load_config(path)
    for key in values:
        if key not in _KEYS:
            raise UserError(f"suite {path} has a key '{key}': expected {', '.join(_KEYS)}{near(str(key), _KEYS)}")
    data = _typed(path, "data", values.get("data") or {}, dict, "a mapping such as {train: demo, size: 64}")
    entries = _typed(path, "experiments", values.get("experiments") or [], list, "a list of {config: FILE}")
    if not entries:
        raise UserError(f"suite {path} has no experiments: expected a list of {{config: FILE}}")
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
) -> TrainedSuite:
    """Train the unfinished runs of a suite; interrupted ones are resumed. Returns the rows of its table.

    All configurations are checked before the first run begins. If a run fails, its error is reported and the next run
    begins.

    Args:
        budget: time limit of each run; a run also ends after its own number of steps.
        overrides: dotted options of scripts.train for every run, which override the suite's.

    Raises UserError for invalid options, and what `common.training.loop.train` raises when it is asked to stop.
    """
    progress, done = progress or Progress(), TrainedSuite()
    configs = suite_configs(suite, budget, overrides)
    for count, (name, config) in enumerate(configs.items(), 1):
        try:
            _train(config, f"{name}, {count} of {len(configs)}", progress)
        except UserError as error:
            done.failures.append(f"{name}: {error}")
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            done.failures.append(f"{name}: there is not enough memory: choose a smaller batch_size")
        else:
            done.rows.append(f"{name}={config.loop.run}")
            continue
        progress.say(f"{done.failures[-1]}; the other runs are still trained")
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
    """The complete configuration of every run, by its name. Raises UserError, with the run's name, for a bad one."""
    seconds(budget)
    more = (overrides or {}) | ({"budget": budget} if budget else {})
    return {experiment.name: _config(suite, experiment, more) for experiment in suite.experiments}


def _train(config: TrainConfig, title: str, progress: Progress) -> None:
    packs = training_packs(config.data, progress)
    if is_finished(config, *packs):
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
    """The runs of an entry of the suite, one per seed."""
    entry = _typed(path, "experiments", entry, dict, "entries such as {config: experiments/baselines/cnn.yaml}")
    if not isinstance(entry.get("config"), str):
        raise UserError(f"suite {path} has an experiment without 'config': expected the file of an experiment")
    file = Path(entry["config"])
    if not file.exists():
        raise UserError(
            f"suite {path} names the config {file}, which does not exist: paths are relative to the working directory"
        )
    name = str(entry.get("name", file.stem))
    if not name or set(name) & set("/=,() ") or name in TRIVIAL:
        raise UserError(f"suite {path} calls an experiment '{name}': expected a word without / = , ( ) or spaces")
    seeds = entry.get("seeds")
    valid = isinstance(seeds, list) and seeds and all(type(s) is int and s >= 0 for s in seeds)
    if "seeds" in entry and not (valid and len(set(seeds)) == len(seeds)):
        raise UserError(f"suite {path} gives {name} the seeds {seeds}: expected a list of different whole numbers")
    options = {key: value for key, value in entry.items() if key not in _ENTRY}
    if "run" in options:
        raise UserError(
            f"suite {path} gives {name} a key 'run': the run's folder is made from the suite's 'runs' and the 'name'"
        )
    if not seeds:
        return [Experiment(name, name, file, options)]
    return [Experiment(f"{name}-seed{seed}", name, file, options | {"seed": seed}) for seed in seeds]


def _config(suite: Suite, experiment: Experiment, more: dict[str, object]) -> TrainConfig:
    values = load_config(experiment.file)
    for options in ({"data": suite.data}, experiment.options, more, {"run": str(suite.runs / experiment.name)}):
        values = _merged(values, options)
    try:
        return config_from_dict(values)
    except UserError as error:
        raise UserError(f"suite {suite.path}, {experiment.name}: {error}") from None


def _merged(values: dict, options: dict, path: str = "") -> dict:
    """Nested values, overridden by options with nested or dotted keys.

    Only the groups of a config and of its model are merged; any other mapping is replaced as a whole.
    """
    out = dict(values)
    for name, value in options.items():
        key, _, rest = str(name).partition(".")
        value = {rest: value} if rest else value
        is_group = f"{path}{key}" in _GROUPS or f"{path}{key}".startswith("model.") or rest
        if isinstance(value, dict) and is_group:
            value = _merged(out[key] if isinstance(out.get(key), dict) else {}, value, f"{path}{key}.")
        out[key] = value
    return out


def _expanded(row: str, folders: dict[str, str], groups: dict[str, list[str]]) -> list[str]:
    """A row in which names of the suite's runs are replaced by their folders, and names of groups by all their runs.

    Empty for a row that names a run or a group of the suite, which are rows already. Raises UserError if a run of a
    group was not trained to its end.
    """
    title, text = split_title(row)
    expression = parse_ensemble(text)
    if not expression:
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
        raise UserError(f"suite {path} has {key} {value}: expected {takes}")
    return value


def _words(path: Path, key: str, value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"suite {path} has {key} {value}: expected a list of names")
    return value
