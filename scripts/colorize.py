"""Colorize photographs: same size, same light, only color is added.

examples:
  colorize old.jpg                                     # writes old.color.jpg
  colorize scans/ --recursive --out colored/ --restore
  colorize portrait.tif --model runs/mine --hint 120,80,#8a4b2d --saturation 1.2 --compare
  colorize old.jpg --model runs/rebalanced --temperature 0.2 --distribution --pixel 120,80
  colorize - < old.png > new.png
  colorize models                                      # what is installed
  colorize serve                                       # a page to do it on
  python -m scripts.colorize scans/*.tif

IN may be files, folders (their pictures, without what this command wrote), patterns, or - for standard input. OUT is a
file where IN is one file and OUT names a picture format, else a folder. Without --out, NAME.color.EXT is written beside
the input. Nothing that exists is overwritten without --overwrite.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import PictureError, UserError, entry_point
from scripts.arguments import Parser, above_zero

if TYPE_CHECKING:
    import numpy as np

    from common.colorizer import Colorizer
    from common.imaging.read import Picture
    from common.photo.batch import Outcome, Settings, Task

DEFAULT_MODEL = "calm64"


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, colorize, say what became of each file."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["models"]:
        return list_models(argv[1:])
    if argv[:1] == ["serve"]:
        from scripts.colorize_page import serve

        return serve(argv[1:])
    args = make_parser().parse_args(argv)
    if args.pixel and not args.distribution:
        raise UserError("--pixel is given without --distribution: add it")

    from common.photo.batch import colorize_files, find_pictures
    from common.photo.edit import Edit

    edit = Edit(args.saturation, args.hue, args.temperature_kelvin)
    found, failures = find_pictures(args.inputs, args.recursive)
    tasks = make_tasks(found, args)
    outcomes: list[Outcome] = []
    if tasks:
        from common.registry import load_colorizer
        from common.utils.device import pick_device

        colorizer = load_colorizer(args.model, pick_device(args.device))
        settings = make_settings(colorizer, edit, args)
        started = time.perf_counter()
        for outcome in colorize_files(colorizer, tasks, settings):
            outcomes.append(outcome)
            tell(outcome, len(outcomes), len(tasks), time.perf_counter() - started, args)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return summarise(outcomes, failures, args)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser("colorize", __doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="picture files, folders, patterns, or - for standard input")
    add("--model", "--weights", default=DEFAULT_MODEL, help="an installed model, a .safetensors file or a run folder")
    add("--out", type=Path, help="file or folder to write to, or - for standard output")
    add("--recursive", action="store_true", help="also the folders in a folder, kept as they are below OUT")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--size", type=int, help="side of the square that the network sees (default: as it was trained)")
    add("--saturation", type=float, default=1.0, help="factor on the strength of color")
    add("--hue", type=float, default=0.0, help="degrees to turn all hues by")
    add("--temperature-kelvin", type=float, metavar="K", help="light of the scene: below 6504 warmer, above colder")
    add("--hint", action="append", default=[], metavar="X,Y,#RRGGBB", help="a pixel and its color; may be repeated")
    add("--hints", type=Path, metavar="PNG", help="transparent picture with dots of color, laid over each photograph")
    add("--palette", type=Path, metavar="PHOTO", help="take over the color mood of another photograph")
    add("--restore", action="store_true", help="first remove the tint and the fading of an old scan")
    add("--compare", action="store_true", help="also write NAME.compare.png: before and after")
    add("--temperature", type=above_zero, metavar="T", help="of a classification model: lower is more colorful")
    add("--distribution", action="store_true",
        help="also write NAME.distribution.png, with the entropy map and the colors believed of some pixels, and"
        " NAME.distribution.html, where a click on the photograph shows them of any place")  # fmt: skip
    add("--pixel", type=pixel, action="append", metavar="X,Y", help="show the colors of this one; may be repeated")
    add("--json", action="store_true", help="print one JSON document of all outcomes instead of names")
    return parser


def make_tasks(found: list[tuple[str, Path]], args: argparse.Namespace) -> list[Task]:
    """Each picture with the place where its colorization goes. Raises UserError where --out does not fit."""
    from common.imaging.read import SUFFIXES
    from common.photo.batch import Task

    out = args.out
    to_pipe = out == Path("-") or (out is None and [name for name, _ in found] == ["-"])
    one_file = bool(out and not to_pipe and out.suffix.lower() in SUFFIXES and not out.is_dir())
    if out and not to_pipe and out.suffix and not one_file and not out.is_dir():
        raise UserError(f"--out {out} names no picture format: use {', '.join(SUFFIXES)}, or a folder's name")
    if (one_file or to_pipe) and (len(found) > 1 or len(args.inputs) > 1):
        raise UserError(f"--out {out or '-'} names one file for {max(len(found), len(args.inputs))} pictures: give a"
                        " folder")  # fmt: skip
    if to_pipe and args.json:
        raise UserError("--json and the picture would both go to standard output: give --out FILE")
    tasks = []
    for name, below in found:
        data = sys.stdin.buffer.read() if name == "-" else None
        if to_pipe:
            target = None
        elif one_file:
            target = out
        elif name == "-":
            raise UserError(f"--out {out} is a folder, and a picture from standard input has no name: name a file")
        elif out is None:
            target = Path(name).with_name(f"{Path(name).stem}.color{Path(name).suffix}")
        else:
            target = out / below
        tasks.append(Task(name, target, data))
    return tasks


def make_settings(colorizer: Colorizer, edit: object, args: argparse.Namespace) -> Settings:
    """How to colorize. Raises UserError where the model cannot do what is asked."""
    from dataclasses import replace

    from common.colorizer import Colorizer
    from common.imaging.read import open_image
    from common.photo.batch import Settings, provenance_of

    if args.temperature is not None:
        if colorizer.temperature is None:
            raise UserError(f"--temperature is given and {args.model} predicts no distribution: use a classifier")
        colorizer.temperature = args.temperature
    if args.distribution and type(colorizer).distribution is Colorizer.distribution:
        raise UserError(f"--distribution is given and {args.model} predicts none: use a classifier")
    if args.size is not None and not 16 <= args.size <= 2048:
        raise UserError(f"--size is {args.size}: it takes 16 to 2048 pixels")
    if args.palette:
        edit = replace(edit, palette=open_image(args.palette).on_white())
    size = args.size or colorizer.card["size"]
    extra = (lambda *found: show_distribution(colorizer, size, *found, args)) if args.distribution else None
    return Settings(
        size=size, edit=edit, hints=args.hint, hint_dots=read_dots(args.hints) if args.hints else None,
        restore=args.restore, compare=args.compare, overwrite=args.overwrite,
        provenance=provenance_of(colorizer.card), extra=extra, check=lambda picture: check(picture, args),
        say=lambda line: print(f"note: {line}", file=sys.stderr),
    )  # fmt: skip


def check(picture: Picture, args: argparse.Namespace) -> None:
    """Raise PictureError for a picture that the command line does not fit."""
    from common.photo.distribution import check_pixels

    check_pixels(args.pixel or [], picture.rgb.shape[:2], picture.name)


def read_dots(path: Path) -> np.ndarray:
    """A picture of hints as uint8 [H, W, 4]."""
    import numpy as np

    from common.imaging.read import open_image

    picture = open_image(path)
    if picture.alpha is None:
        raise PictureError(f"--hints {path} has no transparency: paint dots of color on a transparent picture")
    return np.dstack([picture.rgb, picture.alpha])


def show_distribution(
    colorizer: Colorizer, size: int, picture: Picture, colored: np.ndarray, target: Path, args: argparse.Namespace
) -> list[Path]:
    """Write what the model believes of a photograph beside its colorization: a sheet, and a page to click on."""
    from common.photo import distribution as d
    from common.photo.batch import beside

    sheet, page = beside(target, "distribution", ".png"), beside(target, "distribution", ".html")
    for path in (sheet, page):
        if path.exists() and not args.overwrite:
            raise PictureError(f"{path} exists already: use --overwrite, or another --out")
    found = d.distribution_of(colorizer, picture.rgb, size)
    pixels = args.pixel or d.typical_pixels(found, picture.rgb.shape[:2])
    grey = d.grey_of(picture.rgb)
    try:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        d.draw_distribution(found, grey, colored, pixels, sheet)
        d.write_page(found, grey, colored, Path(picture.name).name, page)
    except OSError as error:
        raise PictureError(f"{sheet} cannot be written ({error.strerror}): choose another --out") from None
    return [sheet, page]


def pixel(text: str) -> tuple[int, int]:
    """X,Y -> (x, y), for argparse."""
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"it is {text} and takes two whole numbers, as in 120,80") from None
    return x, y


def tell(outcome: Outcome, done: int, total: int, seconds: float, args: argparse.Namespace) -> None:
    """Say what became of one picture, and how long the others will take."""
    left = f"{done} of {total}, {seconds / done * (total - done):.0f} s left"
    if outcome.data is not None:
        sys.stdout.buffer.write(outcome.data)
        sys.stdout.buffer.flush()
    elif outcome.status == "done" and not args.json:
        beside = f"   ({left})" if sys.stdout.isatty() and done < total else ""
        print("\n".join(outcome.outputs) + beside, flush=True)
    if outcome.status != "done":
        print(f"error: {outcome.reason}", file=sys.stderr)
    if total > 1 and sys.stderr.isatty() and not sys.stdout.isatty():
        print(f"\r{left}  ", end="\n" if done == total else "", file=sys.stderr)


def summarise(outcomes: list[Outcome], failures: list[str], args: argparse.Namespace) -> int:
    """Print the outcome of all; returns the exit code, 0 where all were colorized."""
    count = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "refused")}
    count["refused"] += len(failures)
    if args.json:
        pictures = [outcome.to_dict() for outcome in outcomes]
        print(json.dumps({"summary": count, "not_found": failures, "pictures": pictures}, indent=1))
    elif sum(count.values()) > 1:
        text = f"{count['done']} colorized, {count['skipped']} skipped, {count['refused']} refused"
        print(text, file=sys.stderr)
    return 1 if count["skipped"] + count["refused"] else 0


def list_models(argv: list[str]) -> int:
    """Print what is installed: size, family, training set, scores."""
    parser = Parser("colorize models", "List the models that are installed.\n\nexamples:\n  colorize models --json")
    parser.add_argument("--json", action="store_true", help="print the whole cards")
    args = parser.parse_args(argv)

    from common.checkpoint import installed_models, read_card

    cards = {name: read_card(path) for name, path in installed_models().items()}
    if args.json:
        print(json.dumps(cards, indent=1))
        return 0
    for name, card in cards.items():
        trained, scores = card["trained_on"], card["validation"]
        print(f"{name}{'  (default)' if name == DEFAULT_MODEL else ''}")
        print(f"  {card['family']}, {card['parameters'] / 1e6:.2f} M parameters, sees {card['size']} px")
        print(f"  trained on {trained['count']} photographs of {trained['source']}")
        if scores:
            told = ", ".join(f"{metric} {scores[metric]:.4g}" for metric in ("rmse_ab", "colorfulness_ratio"))
            print(f"  {told} on {card.get('measured_on', 'its validation photographs')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
