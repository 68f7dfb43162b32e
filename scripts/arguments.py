"""Command lines of the scripts, and the options that several scripts share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError

if TYPE_CHECKING:  # it imports torch, which --help does not need
    from common.ensemble.stacks import StackOptions
    from common.evaluation.options import MeasureOptions


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"it is {text} and takes a whole number above 0")
    return value


def natural(text: str) -> int:
    """A whole number from 0 to 2^63 - 1, for argparse."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"it is {text} and takes a whole number from 0 to 2^63 - 1")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, for argparse."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"it is {text} and takes a number between 0 and 1")
    return value


def above_zero(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"it is {text} and takes a number above 0")
    return value


def expression(text: str) -> str:
    """A regular expression, for argparse."""
    from common.evaluation.photograph_groups import compile_group

    try:
        compile_group(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def measure_options(args: argparse.Namespace) -> MeasureOptions:
    """The options that `Parser.add_measuring` added to a command line."""
    from common.data.sources import cache_dir
    from common.evaluation.options import MeasureOptions

    return MeasureOptions(
        data=args.data, split=args.split, val_fraction=args.val_fraction, size=args.size, limit=args.limit,
        include_trained=args.include_trained,
        predict_size=args.predict_size, group=args.group,
        metrics=args.metrics, features=args.features, prior=args.prior, mean_from=args.mean_from,
        real_fake_from=args.real_fake_from, semantics_from=args.semantics_from,
        semantics_network=args.semantics_network, batch_size=args.batch_size, device=args.device, seed=args.seed,
        cache=args.cache,
        value_cache=None if args.no_keep else args.keep or cache_dir(args.cache) / "measured",
    )  # fmt: skip


def stack_options(args: argparse.Namespace, measured: MeasureOptions) -> StackOptions:
    """The options that `Parser.add_stacking` added to a command line."""
    from common.ensemble.stacks import STACKS, StackOptions

    return StackOptions(measured, args.stacks or STACKS, args.stack_data, args.stack_budget)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps the layout of its description, and raises UserError for a bad command line."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> None:  # type: ignore[override]
        """Called by argparse."""
        raise UserError(f"{message.removeprefix('argument ')} (--help shows all)")

    def add_stacking(self) -> None:
        """Add the options that control how a row stack(a,b) is trained."""
        self.add_argument("--stack_budget", default="2m", help="training time of each row stack(a,b), at its first use")
        self.add_argument("--stack_data", metavar="SOURCE", help="photographs to train stacks on, which must not"
                          " be measured (default: those of the first member)")  # fmt: skip
        self.add_argument("--stacks", type=Path, metavar="DIR", help="folder of trained stacks (default: runs/stacks)")

    def add_suite(self) -> None:
        """Add the options of a suite of experiments, which is trained before it is measured."""
        self.add_argument("--suite", type=Path, metavar="FILE", help="train the unfinished experiments of this file"
                          " first; it also contains defaults of --data, --size, --metrics and --out")  # fmt: skip
        self.add_argument("--budget", metavar="TIME", help="with --suite: time limit of each run, as in 90s, 20m or"
                          " 2h; a run also ends after its own number of steps")  # fmt: skip
        self.add_argument("--train", metavar="SOURCE", help="with --suite: other training photographs; --data is then"
                          " also used for validation")  # fmt: skip

    def check_suite(self, args: argparse.Namespace) -> None:
        """Raise UserError if the given options contradict each other."""
        needed = {"runs": args.runs, "--data": args.data, "--out": args.out}
        if not args.suite and (missing := [name for name, value in needed.items() if not value]):
            self.error(f"the following arguments are required: {', '.join(missing)}")
        if not args.suite and (args.budget or args.train):
            self.error(
                f"{'--budget' if args.budget else '--train'} is given without --suite, and is an option of its runs"
            )

    def add_source(self, required: bool = True) -> None:
        """Add the options of the photographs, the device and the seed. required: whether --data is required."""
        self.add_argument("--data", required=required, help="folder, tar shards, named set, or demo")
        self.add_argument("--split", choices=["auto", "train", "val", "test", "all"], default="auto",
                          help="part of the source (auto: val, else test, else all)")  # fmt: skip
        self.add_argument("--include_trained", action="store_true",
                          help="also measure photographs that a model was trained on")  # fmt: skip
        self.add_argument("--val_fraction", type=share, default=0.1, help="share held out, for --split train or val")
        self.add_argument("--size", type=int, help="side of the squares that are colorized (default: as trained)")
        self.add_argument("--predict_size", type=positive, metavar="N",
                          help="side of the squares that networks see (default: each its training size)")  # fmt: skip
        self.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
        self.add_argument("--seed", type=natural, default=0, help="seed of all random choices")
        self.add_argument("--cache", help="folder of preprocessed photographs (default: ~/.cache/colorization-lab)")
        self.add_stacking()

    def add_measuring(self, required: bool = True) -> None:
        """Add the options of scripts that compute metrics. required: whether --data is required."""
        self.add_source(required)
        self.add_argument("--metrics", nargs="+",
                          help="names of metrics; `default` stands for those that need no network")  # fmt: skip
        self.add_argument("--features", default="torchvision_inception_v3",
                          help="network of fid_paired and fid_disjoint: %(default)s, or a name of timm's")  # fmt: skip
        self.add_argument("--real_fake_from", "--judge_from", metavar="SOURCE", help="training photographs of"
                          " real_fake_classifier (default: half of the measured ones)")  # fmt: skip
        self.add_argument("--semantics_from", metavar="SOURCE",
                          help="training photographs of semantics, in one folder per class")  # fmt: skip
        self.add_argument("--semantics_network", metavar="NAME[=FILE]",
                          help="instead of --semantics_from: a timm network with ImageNet's classes, and optionally"
                          " the file of its weights")  # fmt: skip
        self.add_argument("--limit", type=positive, help="number of photographs, spread over the source (default: all)")
        self.add_argument("--group", type=expression, metavar="REGEX", help="photographs that depend on each other,"
                          " such as those of a person or video: the first capture group, or the whole match, in a"
                          " photograph's name names its group (default: each photograph)")  # fmt: skip
        self.add_argument("--temperature", type=above_zero, nargs="+", metavar="T",
                          help="temperatures of classification models, a row for each"
                          " (default: as trained)")  # fmt: skip
        self.add_argument("--prior", help="file of scripts.compute_prior, for auc_rebalanced"
                          " (default: the prior of the measured photographs)")  # fmt: skip
        self.add_argument("--mean_from", help="source whose mean color the row 'mean' predicts")
        self.add_argument("--batch_size", type=positive, default=32, help="photographs per batch")
        self.add_argument("--keep", type=Path, metavar="FOLDER",
                          help="cache folder of the metric values of each photograph"
                          " (default: in the cache folder)")  # fmt: skip
        self.add_argument("--no_keep", action="store_true", help="do not use the cache of measured values")
