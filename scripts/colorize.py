"""Colorize photographs: same size, same light, only colour is added.

examples:
  colorize old.jpg --weights runs/resnet18 --out old.color.png
  python -m scripts.colorize scans/*.tif album/ --weights runs/resnet18/weights.safetensors --out coloured/
  colorize old.jpg --weights runs/rebalanced --temperature 0.2 --distribution --pixel 120,80

IN may be files or folders (their pictures, not those of sub-folders nor NAME.color.EXT). OUT is a file where IN is one
file and OUT names a picture format, else a folder. Without --out, NAME.color.EXT is written beside the input.
--distribution also writes NAME.distribution.png, with the entropy map and the colours believed of some pixels, and
NAME.distribution.html, where a click on the photograph shows them of any place.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import Parser, above_zero
from common.errors import PictureError, UserError, entry_point, tell_failures
from common.images import SUFFIXES, open_image, save_image

if TYPE_CHECKING:
    import numpy as np

    from common.colorizer import Colorizer


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, colorize, say what became of each file."""
    parser = Parser("colorize", __doc__)
    parser.add_argument("inputs", nargs="+", metavar="IN", help="picture files or folders")
    parser.add_argument("--weights", required=True, help="a .safetensors file or a run folder")
    parser.add_argument("--out", type=Path, help="file or folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--temperature", type=above_zero, metavar="T",
                        help="of a classification model: lower is more colourful (default: as trained)")  # fmt: skip
    parser.add_argument("--distribution", action="store_true", help="also show how sure it is, and of which colours")
    parser.add_argument("--pixel", type=pixel, action="append", metavar="X,Y",
                        help="show the colours of this pixel, from 0,0 on; may be repeated")  # fmt: skip
    args = parser.parse_args(argv)
    if args.pixel and not args.distribution:
        raise UserError("--pixel is given without --distribution: add it")

    failures: list[str] = []
    files = list_inputs(args.inputs, failures)
    one_file = bool(args.out and args.out.suffix.lower() in SUFFIXES and not args.out.is_dir())
    if args.out and args.out.suffix and not one_file and not args.out.is_dir():
        raise UserError(f"--out {args.out} names no picture format: use {', '.join(SUFFIXES)}, or a folder's name")
    if one_file and (len(files) > 1 or len(args.inputs) > 1):
        raise UserError(f"--out {args.out} names one file for {len(files)} pictures: give a folder")
    done = 0
    if files:
        from common.colorizer import Colorizer, load_colorizer
        from common.device import pick_device
        from common.photo.colorize import colorize
        from common.photo.distribution import check_pixels

        colorizer, card = load_colorizer(args.weights, pick_device(args.device))
        if args.temperature is not None:
            if colorizer.temperature is None:
                raise UserError(f"--temperature is given and {args.weights} predicts no distribution: use a classifier")
            colorizer.temperature = args.temperature
        if args.distribution and type(colorizer).distribution is Colorizer.distribution:
            raise UserError(f"--distribution is given and {args.weights} predicts none: use a classifier")
        written: set[Path] = set()
        for file in files:
            try:
                target = target_of(file, args.out, one_file)
                if target in written or (target.exists() and not args.overwrite):
                    raise PictureError(f"{target} exists already: use --overwrite, or another --out")
                picture = open_image(file)
                check_pixels(args.pixel or [], picture.rgb.shape[:2], str(file))
                coloured = colorize(colorizer, picture.rgb, card["size"])
                save_image(target, coloured, like=picture)
                written.add(target)
                print(target)
                done += 1
                if args.distribution:
                    show_distribution(colorizer, card["size"], picture.rgb, coloured, file, target, args)
            except PictureError as error:
                failures.append(str(error))
    code = tell_failures(failures)
    if len(files) + len(failures) > 1:
        print(f"{done} colorized, {len(failures)} not", file=sys.stderr)
    return code


def list_inputs(inputs: list[str], failures: list[str]) -> list[Path]:
    """The files that the arguments name; a folder stands for the pictures in it."""
    files: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            try:
                found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
                # what this command wrote before
                found = [p for p in found if not p.stem.endswith((".color", ".distribution"))]
            except OSError as error:
                failures.append(f"folder {path} cannot be read ({error.strerror}): check its permissions")
                continue
            if not found:
                failures.append(f"folder {path} holds no pictures: looked for {', '.join(SUFFIXES)}")
            files += found
        elif path.exists():
            files.append(path)
        else:
            failures.append(f"{path} does not exist: check the path")
    return files


def show_distribution(
    colorizer: Colorizer,
    size: int,
    rgb: np.ndarray,
    coloured: np.ndarray,
    file: Path,
    target: Path,
    args: argparse.Namespace,
) -> None:
    """Write what the model believes of a photograph beside its colorization: a sheet, and a page to click on."""
    from common.photo import distribution as d

    base = target.with_name(target.stem.removesuffix(".color"))
    sheet, page = (base.with_name(f"{base.name}.distribution{suffix}") for suffix in (".png", ".html"))
    for path in (sheet, page):
        if path.exists() and not args.overwrite:
            raise PictureError(f"{path} exists already: use --overwrite, or another --out")
    found = d.distribution_of(colorizer, rgb, size)
    pixels = args.pixel or d.typical_pixels(found, rgb.shape[:2])
    grey = d.grey_of(rgb)
    try:
        d.draw_distribution(found, grey, coloured, pixels, sheet)
        d.write_page(found, grey, coloured, file.name, page)
    except OSError as error:
        raise PictureError(f"{sheet} cannot be written ({error.strerror}): choose another --out") from None
    print(sheet, page, sep="\n")


def pixel(text: str) -> tuple[int, int]:
    """X,Y -> (x, y), for argparse."""
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"it is {text} and takes two whole numbers, as in 120,80") from None
    return x, y


def target_of(file: Path, out: Path | None, one_file: bool) -> Path:
    """Where the colorization of a file goes."""
    if out is None:
        return file.with_name(f"{file.stem}.color{file.suffix}")
    return out if one_file else out / file.name


if __name__ == "__main__":
    sys.exit(main())
