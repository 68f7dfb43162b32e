"""Colorize photographs and films. Size and lightness stay the same; only color is added.

examples:
  colorize old.jpg                                     # writes old.color.jpg
  colorize scans/ --recursive --out colored/ --restore
  colorize portrait.tif --model runs/mine --hint 120,80,#8a4b2d --saturation 1.2 --compare
  colorize old.jpg --model runs/rebalanced --temperature 0.2 --distribution --pixel 120,80
  colorize old.jpg --variants 4                        # also writes old.color.2.jpg to old.color.4.jpg
  colorize - < old.png > new.png
  colorize film.mp4                                    # writes film.color.mp4, with the sound of film.mp4
  colorize film.mp4 --preview 10                       # a sheet with ten stills
  colorize models                                      # list the installed models
  colorize serve                                       # colorize in the browser
  python -m scripts.colorize scans/*.tif

IN is any number of files, folders and patterns, or - for standard input. A folder stands for the pictures in it, except
those that this command wrote. OUT is a file if IN is one file and OUT ends in the suffix of a picture format; otherwise
it is a folder. Without --out, NAME.color.EXT is written beside the input. Existing files are replaced only with
--overwrite. The same command resumes an interrupted folder, and colorizes pictures that were added to it: pictures that
an earlier run has colorized with the same model are skipped.

Films are named one by one. An interrupted film is resumed by the same command.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import PictureError, UserError, entry_point, require
from common.utils.startup import leave_at_once, quick_imports
from scripts.arguments import DEFAULT_MODEL, Parser, above_zero, natural, network_size, set_temperature
from scripts.colorize_film import add_film_options, check_options, colorize_films, films_in_folders, is_film

RESTORE = ("auto", "on", "off")

if TYPE_CHECKING:
    import numpy as np

    from common.colorizer import Colorizer
    from common.imaging.read import Picture
    from common.photo.batch import Outcome, Task
    from common.photo.edit import Edit
    from common.photo.pages import BatchConfig


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse the command line, colorize, and report the outcome of each file."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["models"]:
        return list_models(argv[1:])
    if argv[:1] == ["serve"]:
        from scripts.colorize_page import serve

        return serve(argv[1:])
    parser = make_parser()
    args = parser.parse_args(with_values(argv))
    if args.temperature and args.temperature > 100:
        raise UserError(
            f"--temperature is {args.temperature:g}: expected a softmax temperature up to 100 (for the light of the"
            f" scene, use --temperature-kelvin {args.temperature:g})"
        )
    films = [name for name in args.inputs if is_film(name)]
    check_options(parser, args, films[0] if films else None)
    if films and len(films) < len(args.inputs):
        other = next(name for name in args.inputs if not is_film(name))
        raise UserError(f"{films[0]} is a film and {other} is not: colorize films and pictures with separate commands")
    if args.pixel and not args.distribution:
        raise UserError("--pixel is given without --distribution: add it")

    with quick_imports():
        from common.photo.batch import colorize_files, find_pictures
        from common.photo.edit import Edit

    edit = Edit(args.saturation, args.hue, args.temperature_kelvin)
    if films:
        return colorize_films(args, edit)
    found, failures = find_pictures(args.inputs, args.recursive, args.out)
    tasks = make_tasks(found, args)
    outcomes: list[Outcome] = []
    if tasks:
        from common.registry import load_colorizer
        from common.utils.device import pick_device

        colorizer = load_colorizer(args.model, pick_device(args.device))
        config = make_config(colorizer, edit, args)
        started = time.perf_counter()
        for outcome in colorize_files(colorizer, tasks, config):
            outcomes.append(outcome)
            report(outcome, len(outcomes), len(tasks), time.perf_counter() - started, args)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if left_out := films_in_folders(args.inputs, args.recursive):
        names = ", ".join(left_out)
        print(f"note: films in folders are left out: name them to colorize them ({names})", file=sys.stderr)
    return summarize(outcomes, failures, args)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser("colorize", __doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="picture files, folders, patterns, or - for standard input; or films")
    add("--model", "--weights", "--run", default=DEFAULT_MODEL, metavar="MODEL",
        help="an installed model, a run folder or a .safetensors file (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, help="file or folder to write to, or - for standard output")
    add("--recursive", action="store_true", help="also colorize the pictures in sub-folders; OUT gets the same folders")
    add("--overwrite", action="store_true", help="replace existing files")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--size", type=int, help="side of the network's square input, in pixels (default: as in training)")
    add("--saturation", type=float, default=1.0, help="factor on the chroma (default: 1)")
    add("--hue", type=float, default=0.0, help="rotate all hues by so many degrees")
    add("--temperature-kelvin", type=float, metavar="K", help="light of the scene: below 6504 warmer, above colder")
    add("--hint", action="append", default=[], metavar="X,Y,COLOR[,RADIUS]",
        help="color of one place, a name such as navy or #rrggbb; may be repeated")  # fmt: skip
    add(
        "--hints",
        type=Path,
        metavar="PNG",
        help="transparent picture with painted dots and strokes, each of which is a hint",
    )
    add("--palette", type=Path, metavar="PHOTO", help="match the color statistics of another photograph")
    add("--restore", choices=RESTORE, default="auto",
        help="on, or no value: first remove the tint of an old scan and undo its fading; auto: only report fading"
        " (default: auto)")  # fmt: skip
    add("--repair", action="store_true",
        help="first fill in long scratches, and write NAME.repair.png, which shows them in red")  # fmt: skip
    add("--anyway", action="store_true", help="also colorize photographs that are in color already")
    add("--variants", type=natural, default=1, metavar="N",
        help="write N different colorizations, NAME.color.EXT, NAME.color.2.EXT and so on")  # fmt: skip
    add("--seed", type=natural, default=0, help="of the variants: another seed gives others (default: 0)")
    add("--compare", action="store_true", help="also write NAME.compare.png, which shows the picture before and after")
    add(
        "--temperature",
        type=above_zero,
        metavar="T",
        help="softmax temperature of a classifier: lower is more vivid",
    )
    add("--distribution", action="store_true",
        help="also write NAME.distribution.png, with the entropy map and the predicted distribution at some pixels, and"
        " NAME.distribution.html, which shows the distribution at any place that is clicked")  # fmt: skip
    add("--pixel", type=pixel, action="append", metavar="X,Y", help="a pixel for --distribution; may be repeated")
    add("--json", action="store_true", help="print all outcomes as one JSON document, instead of the written files")
    add_film_options(parser)
    return parser


def with_values(argv: list[str]) -> list[str]:
    """The arguments, with a value for each --restore that has none: the next argument may be a file."""
    following = [*argv[1:], ""]
    pairs = zip(argv, following, strict=True)
    return ["--restore=on" if one == "--restore" and two not in RESTORE else one for one, two in pairs]


def make_tasks(found: list[tuple[str, Path]], args: argparse.Namespace) -> list[Task]:
    """Pair each picture with its target. Raises UserError if --out does not fit the inputs."""
    from common.imaging.header import read_bytes
    from common.imaging.read import SUFFIXES
    from common.photo.batch import Task

    out = args.out
    to_pipe = out == Path("-") or (out is None and [name for name, _ in found] == ["-"])
    one_file = bool(out and not to_pipe and out.suffix.lower() in SUFFIXES and not out.is_dir())
    other_format = out and not one_file and (mimetypes.guess_type(out.name)[0] or "").startswith("image/")
    if other_format and not to_pipe and not out.is_dir():
        raise UserError(f"--out {out} names no picture format: use {', '.join(SUFFIXES)}, or a folder's name")
    if (one_file or to_pipe) and (len(found) > 1 or len(args.inputs) > 1):
        raise UserError(f"--out {out or '-'} names one file for {max(len(found), len(args.inputs))} pictures: give a"
                        " folder")  # fmt: skip
    if to_pipe and args.variants > 1:
        raise UserError(f"--variants is {args.variants}, and standard output takes one picture: give --out FILE")
    if to_pipe and args.json:
        raise UserError("--json and the picture would both go to standard output: give --out FILE")
    tasks = []
    for name, relative in found:
        data = read_bytes(sys.stdin.buffer, "standard input") if name == "-" else None
        if to_pipe:
            target = None
        elif one_file:
            target = out
        elif name == "-":
            raise UserError(f"--out {out} is a folder, and a picture from standard input has no name: name a file")
        elif out is None:
            target = Path(name).with_name(f"{Path(name).stem}.color{Path(name).suffix}")
        else:
            target = out / relative
        tasks.append(Task(name, target, data))
    return tasks


def make_config(colorizer: Colorizer, edit: Edit, args: argparse.Namespace) -> BatchConfig:
    """Translate the options. Raises UserError if the model does not support one of them."""
    from dataclasses import replace

    from common.imaging.read import open_image
    from common.photo.batch import provenance_text
    from common.photo.pages import BatchConfig
    from common.photo.variants import check_variants
    from common.predictor import PredictorConfig

    set_temperature(colorizer, args)
    if args.distribution and not hasattr(colorizer, "distribution"):
        raise UserError(f"--distribution requires a classifier, and {args.model} is not one: use another --model")
    if args.distribution:
        require("matplotlib")
    check_variants(colorizer, args.variants, args.model)
    size = network_size(colorizer, args)
    if args.palette:
        edit = replace(edit, palette=open_image(args.palette).on_white())
    return BatchConfig(
        predictor=PredictorConfig(size), edit=edit, hints=args.hint,
        hint_dots=read_dots(args.hints) if args.hints else None,
        restore=args.restore, repair=args.repair, refuse_colored=not args.anyway,
        variants=args.variants, seed=args.seed, compare=args.compare, overwrite=args.overwrite,
        provenance=provenance_text(colorizer.card),
        check=lambda picture: check(picture, args),
        write_extra=(lambda *page: write_distribution(colorizer, size, *page, args)) if args.distribution else None,
        report=lambda message: print(f"note: {message}", file=sys.stderr),
    )  # fmt: skip


def check(picture: Picture, args: argparse.Namespace) -> None:
    """Raise PictureError if a --pixel is outside a picture."""
    from common.photo.distribution import check_pixels

    check_pixels(args.pixel or [], picture.rgb.shape[:2], picture.name)


def read_dots(path: Path) -> np.ndarray:
    """Read a picture of hints as uint8 [H, W, 4]."""
    import numpy as np

    from common.imaging.read import open_image

    picture = open_image(path)
    if picture.alpha is None:
        raise PictureError(f"--hints {path} has no transparency: paint colored dots on a transparent picture")
    return np.dstack([picture.rgb, picture.alpha])


def write_distribution(
    colorizer: Colorizer, size: int, picture: Picture, colored: np.ndarray, target: Path, args: argparse.Namespace
) -> list[Path]:
    """Write the figure and the page of a photograph's predicted distribution beside its colorization."""
    from common.photo import distribution as d
    from common.photo.batch import sibling

    figure, page = sibling(target, "distribution", ".png"), sibling(target, "distribution", ".html")
    for path in (figure, page):
        if os.path.lexists(path) and not args.overwrite:
            raise PictureError(f"{path} exists already: use --overwrite, or another --out")
    distribution = d.predict_distribution(colorizer, picture.rgb, size)
    pixels = args.pixel or d.representative_pixels(distribution, picture.rgb.shape[:2])
    grey = d.to_grey(picture.rgb)
    try:
        figure.parent.mkdir(parents=True, exist_ok=True)
        d.draw_distribution(distribution, grey, colored, pixels, figure)
        d.write_distribution_page(distribution, grey, colored, Path(picture.name).name, page)
    except OSError as error:
        raise PictureError(f"{figure} cannot be written ({error.strerror}): choose another --out") from None
    return [figure, page]


def pixel(text: str) -> tuple[int, int]:
    """Parse X,Y for argparse."""
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two whole numbers, as in 120,80, got {text}") from None
    return x, y


def report(outcome: Outcome, done: int, total: int, seconds: float, args: argparse.Namespace) -> None:
    """Print the outcome of one picture, and on a terminal the estimated time that is left."""
    left = f"{done} of {total}, {seconds / done * (total - done):.0f} s left"
    if outcome.data is not None:
        sys.stdout.buffer.write(outcome.data)
        sys.stdout.buffer.flush()
    elif outcome.status == "done" and not args.json:
        progress = f"   ({left})" if sys.stdout.isatty() and done < total else ""
        print("\n".join(outcome.outputs) + progress, flush=True)
    if outcome.status != "done" and not outcome.finished:
        print(f"error: {outcome.reason}", file=sys.stderr)
    if total > 1 and sys.stderr.isatty() and not sys.stdout.isatty():
        print(f"\r{left}  ", end="\n" if done == total else "", file=sys.stderr)


def summarize(outcomes: list[Outcome], failures: list[str], args: argparse.Namespace) -> int:
    """Print a summary and return the exit code: 0 if all pictures are colorized, by this run or an earlier one."""
    count = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "refused")}
    count["refused"] += len(failures)
    if args.json:
        pictures = [outcome.to_dict() for outcome in outcomes]
        print(json.dumps({"summary": count, "not_found": failures, "pictures": pictures}, indent=1))
    elif sum(count.values()) > 1:
        text = f"{count['done']} colorized, {count['skipped']} skipped, {count['refused']} refused"
        print(text, file=sys.stderr)
    finished = sum(outcome.finished for outcome in outcomes)
    if finished and not args.json:
        first = next(outcome.reason for outcome in outcomes if outcome.finished)
        print(f"note: {first}" + (f" ({finished} such files)" if finished > 1 else ""), file=sys.stderr)
    return 1 if count["skipped"] - finished + count["refused"] else 0


def list_models(argv: list[str]) -> int:
    """Print the installed models: size, family, training set, scores."""
    parser = Parser("colorize models", "List the installed models.\n\nexamples:\n  colorize models --json")
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
        print(f"  {card['family']}, {card['parameters'] / 1e6:.2f} M parameters, input {card['size']} px")
        print(f"  trained on {trained['count']} photographs of {trained['source']}")
        if scores:
            listed = ", ".join(f"{metric} {scores[metric]:.4g}" for metric in ("rmse_ab", "colorfulness_ratio"))
            print(f"  {listed} on {card.get('measured_on', 'its validation photographs')}")
    return 0


def command() -> None:
    """The command `colorize`: `main`, and an exit that does not wait for the interpreter to take torch apart."""
    code = main()
    if sys.argv[1:2] == ["serve"]:  # its decoding process ends with the interpreter
        sys.exit(code)
    leave_at_once(code)


if __name__ == "__main__":
    command()
