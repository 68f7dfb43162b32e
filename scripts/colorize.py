"""Colorize photographs: same size, same light, only colour is added.

examples:
  colorize old.jpg --weights runs/resnet18 --out old.color.png
  python -m scripts.colorize scans/*.tif album/ --weights runs/resnet18/weights.safetensors --out coloured/

IN may be files or folders (their pictures, not those of sub-folders nor NAME.color.EXT). OUT is a file where IN is one
file and OUT names a picture format, else a folder. Without --out, NAME.color.EXT is written beside the input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.arguments import Parser
from common.errors import PictureError, UserError, entry_point, tell_failures
from common.images import SUFFIXES, open_image, save_image


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, colorize, say what became of each file."""
    parser = Parser("colorize", __doc__)
    parser.add_argument("inputs", nargs="+", metavar="IN", help="picture files or folders")
    parser.add_argument("--weights", required=True, help="a .safetensors file or a run folder")
    parser.add_argument("--out", type=Path, help="file or folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    args = parser.parse_args(argv)

    failures: list[str] = []
    files = list_inputs(args.inputs, failures)
    one_file = bool(args.out and args.out.suffix.lower() in SUFFIXES and not args.out.is_dir())
    if args.out and args.out.suffix and not one_file and not args.out.is_dir():
        raise UserError(f"--out {args.out} names no picture format: use {', '.join(SUFFIXES)}, or a folder's name")
    if one_file and (len(files) > 1 or len(args.inputs) > 1):
        raise UserError(f"--out {args.out} names one file for {len(files)} pictures: give a folder")
    done = 0
    if files:
        from common.colorizer import load_colorizer
        from common.device import pick_device
        from common.photo.colorize import colorize

        colorizer, card = load_colorizer(args.weights, pick_device(args.device))
        written: set[Path] = set()
        for file in files:
            try:
                target = target_of(file, args.out, one_file)
                if target in written or (target.exists() and not args.overwrite):
                    raise PictureError(f"{target} exists already: use --overwrite, or another --out")
                picture = open_image(file)
                save_image(target, colorize(colorizer, picture.rgb, card["size"]), like=picture)
                written.add(target)
                print(target)
                done += 1
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
                found = [p for p in found if not p.stem.endswith(".color")]  # what this command wrote before
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


def target_of(file: Path, out: Path | None, one_file: bool) -> Path:
    """Where the colorization of a file goes."""
    if out is None:
        return file.with_name(f"{file.stem}.color{file.suffix}")
    return out if one_file else out / file.name


if __name__ == "__main__":
    sys.exit(main())
