"""Command lines of the scripts, and the options that several scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.utils.errors import UserError

if TYPE_CHECKING:  # importing torch takes a second
    from common.colorizer import Colorizer
    from common.ensemble.stacks import StackOptions
    from common.evaluation.options import MeasureOptions

DEFAULT_MODEL = "photo"  # of colorize
MODELS = "installed models, run folders or .safetensors files"  # what every command calls MODEL
T = TypeVar("T", int, float)


def _number(convert: Callable[[str], T], text: str, valid: Callable[[T], bool], expected: str) -> T:
    try:
        value = convert(text)
        if valid(value):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be {expected}, got {text}")


def positive(text: str) -> int:
    """Type of an argument: a whole number from 1."""
    return _number(int, text, lambda value: value >= 1, "a whole number above 0")


def natural(text: str) -> int:
    """Type of an argument: a whole number from 0 to 2^63 - 1."""
    return _number(int, text, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1")


def fraction(text: str) -> float:
    """Type of an argument: a number between 0 and 1, both excluded."""
    return _number(float, text, lambda value: 0 < value < 1, "a number between 0 and 1")


def above_zero(text: str) -> float:
    """Type of an argument: a finite number above 0."""
    return _number(float, text, lambda value: 0 < value < float("inf"), "a number above 0")


def expression(text: str) -> str:
    """Type of an argument: a regular expression."""
    from common.evaluation.photograph_groups import compile_group

    try:
        compile_group(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def set_temperature(colorizer: Colorizer, args: argparse.Namespace) -> None:
    """Apply --temperature of `colorize`. Raises UserError if the model is no classifier."""
    if args.temperature is not None:
        if colorizer.temperature is None:
            raise UserError(f"--temperature requires a classifier, and {args.model} is not one: use another --model")
        colorizer.temperature = args.temperature


def network_size(colorizer: Colorizer, args: argparse.Namespace) -> int:
    """--size of `colorize`, or the model's own size, with a note if they differ. Raises UserError if out of range."""
    trained = colorizer.card["size"]
    if args.size is not None and not 16 <= args.size <= 2048:
        raise UserError(f"--size is {args.size}: expected 16 to 2048 pixels")
    if args.size not in (None, trained):
        print(f"note: --size is {args.size}, and the model was trained at {trained} px: its colors are usually better"
              " at that size", file=sys.stderr)  # fmt: skip
    return args.size or trained


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
        raise UserError(f"{message.removeprefix('argument ')} (see --help)")

    def add_stacking(self) -> None:
        """Add the options that control how stack(a,b) is trained."""
        self.add_argument("--stack_budget", default="2m", help="training time of each new stack(a,b)")
        self.add_argument("--stack_data", metavar="SOURCE", help="training photographs of stacks, none of which"
                          " may be evaluated (default: those of the first model)")  # fmt: skip
        self.add_argument("--stacks", type=Path, metavar="DIR", help="folder of trained stacks (default: runs/stacks)")

    def add_suite(self) -> None:
        """Add the options of a suite of experiments, which is trained before it is measured."""
        self.add_argument("--suite", type=Path, metavar="FILE", help="train the unfinished experiments of this file"
                          " first; it also contains defaults of --data, --size, --metrics and --out")  # fmt: skip
        self.add_argument("--budget", metavar="TIME", help="with --suite: time limit of each run, as in 90s, 20m or"
                          " 2h; a run also ends after its own number of steps")  # fmt: skip
        self.add_argument("--train", metavar="SOURCE", help="with --suite: training photographs instead of those in the"
                          " file; --data is then also used for validation")  # fmt: skip

    def check_suite(self, args: argparse.Namespace) -> None:
        """Raise UserError if the given options contradict each other."""
        if args.checkpoints:
            if wrong := "--suite" if args.suite else " ".join(args.models):
                self.error(f"--checkpoints compares the weights of one run: leave {wrong} out")
            needed = {"--out": args.out}
        else:
            needed = {"MODEL": args.models, "--data": args.data, "--out": args.out}
        if not args.suite and (missing := [name for name, value in needed.items() if not value]):
            self.error(f"the following arguments are required: {', '.join(missing)}")
        if not args.suite and (args.budget or args.train):
            self.error(f"{'--budget' if args.budget else '--train'} requires --suite")

    def add_source(self, required: bool = True) -> None:
        """Add the options of the photographs, the device and the seed. required: whether --data is required."""
        self.add_argument("--data", required=required, help="folder, tar shards, named set, or demo")
        self.add_argument("--split", choices=["auto", "train", "val", "test", "all"], default="auto",
                          help="part of the source (auto: val, else test, else all)")  # fmt: skip
        self.add_argument("--include_trained", action="store_true",
                          help="also evaluate photographs that a model was trained on")  # fmt: skip
        self.add_argument(
            "--val_fraction",
            type=fraction,
            default=0.1,
            help="fraction of the photographs that is held out for validation",
        )
        self.add_argument(
            "--size", type=positive, help="size at which models are evaluated, in pixels (default: their training size)"
        )
        self.add_argument("--predict_size", type=positive, metavar="N",
                          help="input size of the networks, in pixels (default: their training size)")  # fmt: skip
        self.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
        self.add_argument("--seed", type=natural, default=0, help="random seed")
        self.add_argument("--cache", help="folder of preprocessed photographs (default: ~/.cache/colorization-lab)")
        self.add_stacking()

    def add_measuring(self, required: bool = True) -> None:
        """Add the options of scripts that compute metrics. required: whether --data is required."""
        self.add_source(required)
        self.add_argument("--metrics", nargs="+",
                          help="names of metrics; `default` stands for all that need no neural network")  # fmt: skip
        self.add_argument("--features", default="torchvision_inception_v3",
                          help="network of feature_distance, fid_paired and fid_disjoint: %(default)s or the name of"
                          " a timm model")  # fmt: skip
        self.add_argument("--real_fake_from", "--judge_from", metavar="SOURCE", help="training photographs of"
                          " real_fake_classifier (default: half of the evaluated ones)")  # fmt: skip
        self.add_argument("--semantics_from", metavar="SOURCE",
                          help="training photographs of semantics, in one folder per class")  # fmt: skip
        self.add_argument("--semantics_network", metavar="NAME[=FILE]",
                          help="instead of --semantics_from: a timm network with ImageNet's classes, and optionally"
                          " the file of its weights")  # fmt: skip
        self.add_argument("--limit", type=positive, help="number of photographs, spread over the source (default: all)")
        self.add_argument("--group", type=expression, metavar="REGEX", help="regular expression on file names:"
                          " photographs with the same first capture group (or match) form a group, such as a person"
                          " or a video, and the bootstrap resamples groups (default: one photograph each)")  # fmt: skip
        self.add_argument("--temperature", type=above_zero, nargs="+", metavar="T",
                          help="evaluate classification models at these softmax temperatures, one row each"
                          " (default: as trained)")  # fmt: skip
        self.add_argument("--prior", help="file of scripts.compute_prior, for auc_rebalanced"
                          " (default: the prior of the measured photographs)")  # fmt: skip
        self.add_argument("--mean_from", help="photographs from which the color of the row 'mean' is computed")
        self.add_argument("--batch_size", type=positive, default=32, help="photographs per batch")
        self.add_argument("--keep", type=Path, metavar="FOLDER",
                          help="cache of the metric values of each photograph"
                          " (default: CACHE/measured)")  # fmt: skip
        self.add_argument("--no_keep", action="store_true", help="do not use the cache of measured values")
