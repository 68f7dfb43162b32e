"""Command lines of the scripts: help with runnable examples, errors in one sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.utils.errors import UserError


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"it is {text} and takes a whole number above 0")
    return value


def natural(text: str) -> int:
    """A whole number from 0, for argparse."""
    return int(text) if int(text) == 0 else positive(text)


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


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps the layout of its description and raises UserError for a bad command line."""

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
        """The options of everything that takes rows: how long, where and from what a row stack(a,b) is trained."""
        self.add_argument(
            "--stack_budget", default="2m", help="time to train each row stack(a,b) for, at its first use"
        )
        self.add_argument("--stack_data", metavar="SOURCE", help="photographs that stacks learn from, never those that"
                          " are measured (default: what the first member was trained on)")  # fmt: skip
        self.add_argument("--stacks", type=Path, metavar="DIR", help="folder of trained stacks (default: runs/stacks)")

    def add_suite(self) -> None:
        """The options of a suite of experiments, which is trained before it is measured."""
        self.add_argument("--suite", type=Path, metavar="FILE", help="train what is missing of these experiments first;"
                          " it also says the defaults of --data, --size, --metrics and --out")  # fmt: skip
        self.add_argument("--budget", metavar="TIME", help="of a suite: for each of its runs, as in 90s, 20m or 2h"
                          " (its own steps end it, too)")  # fmt: skip
        self.add_argument("--train", metavar="SOURCE", help="of a suite: other photographs to train on; --data are then"
                          " those of the validation, too")  # fmt: skip

    def check_suite(self, args: argparse.Namespace) -> None:
        """See that what is given goes together. Raises UserError where it does not."""
        needed = {"runs": args.runs, "--data": args.data, "--out": args.out}
        if not args.suite and (missing := [name for name, value in needed.items() if not value]):
            self.error(f"the following arguments are required: {', '.join(missing)}")
        if not args.suite and (args.budget or args.train):
            self.error(f"{'--budget' if args.budget else '--train'} is given without --suite, whose runs it is for")

    def add_measuring(self, required: bool = True) -> None:
        """The options of everything that measures on a source of photographs. required: whether it has to be named."""
        self.add_argument("--data", required=required, help="folder, tar shards, named set, or demo")
        self.add_argument("--split", choices=["auto", "train", "val", "test", "all"], default="auto",
                          help="which part (auto: the val of the source itself, else its test, else all)")  # fmt: skip
        self.add_argument("--val_fraction", type=share, default=0.1, help="share held out, for --split train or val")
        self.add_argument("--size", type=int, help="side of the square they are measured at (default: as trained)")
        self.add_argument("--metrics", nargs="+",
                          help="default: those that need no network; `default` among names means those")  # fmt: skip
        self.add_argument("--features", default="torchvision_inception_v3",
                          help="network of fid_paired and fid_disjoint: %(default)s, or any of timm's")  # fmt: skip
        self.add_argument("--judge_from", metavar="SOURCE",
                          help="photographs to train judges on (default: half of the measured ones)")  # fmt: skip
        self.add_argument("--semantics_from", metavar="SOURCE",
                          help="photographs in a folder for each class, to train semantics' network on")  # fmt: skip
        self.add_argument("--semantics_network", metavar="NAME[=FILE]",
                          help="or a network of timm's with ImageNet's classes, its weights on this disk")  # fmt: skip
        self.add_argument("--limit", type=positive, help="only so many photographs, spread evenly over the source")
        self.add_argument("--temperature", type=above_zero, nargs="+", metavar="T",
                          help="of classification models: a row for each (default: as trained)")  # fmt: skip
        self.add_argument("--prior", help="file of scripts.compute_prior that auc_rebalanced weighs by"
                          " (default: the measured photographs')")  # fmt: skip
        self.add_argument("--mean_from", help="source whose mean color the row 'mean' paints")
        self.add_argument("--batch_size", type=positive, default=32)
        self.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
        self.add_argument("--seed", type=natural, default=0, help="of the row 'shuffled'")
        self.add_argument("--cache", help="folder for packs (default: ~/.cache/colorization-lab)")
        self.add_argument("--keep", type=Path, metavar="FOLDER",
                          help="where measured values are kept: what was measured once, or before a run was cut off,"
                          " is not measured again (default: in the cache folder)")  # fmt: skip
        self.add_argument("--no_keep", action="store_true", help="keep no values, and use none that are kept")
        self.add_stacking()
