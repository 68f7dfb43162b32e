"""Sources of photographs: a folder, tar shards, a named set, or the demo photographs.

`list_photos(spec)` lists the photographs of a source without reading them; packing reads them.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.data.splits import Split, folder_splits, shard_splits, split_of
from common.imaging.header import MAX_BYTES
from common.imaging.read import SUFFIXES
from common.utils.errors import UserError, one_sentence, require
from common.utils.files import locked, walk

SHARES = (0.01, 100)  # the smallest and the largest
_SHARE = re.compile(r"(?<=\.tar)@[^@/,]*(?=,|$)")

_TOO_LARGE = f"larger than {MAX_BYTES / 1e9:g} GB"


@dataclass(frozen=True)
class Photo:
    """One photograph of a source, not yet read."""

    name: str  # unique in its source
    stamp: str  # differs if the file was changed
    read: Callable[[], bytes]
    split: str | None = None  # "train", "val" or "test", if the source has splits
    tiles: tuple[tuple[float, float, float], ...] = ()  # (left, top, side) as fractions of the shorter side
    source: str | None = None  # its part of a source of several, as `photos-*.tar`
    share: float = 1.0  # how often it is drawn in training, relative to the photographs of other sources


@dataclass(frozen=True)
class Listing:
    """The photographs of a source, and the files that were skipped."""

    spec: str
    photos: list[Photo]
    skipped: list[tuple[str, str]]  # (name, reason)

    @property
    def splits(self) -> set[str]:
        """The splits of the source itself: a subset of train, val and test."""
        return {p.split for p in self.photos if p.split}

    @property
    def has_split(self) -> bool:
        """Whether the source itself has splits."""
        return bool(self.splits)

    @property
    def measured_split(self) -> Split:
        """The split that is evaluated by default: the source's validation split, else its test split, else all."""
        return "val" if "val" in self.splits else "test" if "test" in self.splits else "all"

    def of_split(self, split: Split, val_fraction: float) -> list[Photo]:
        """The photographs of a split.

        If the source has no validation split, `val_fraction` of its photographs (not counting a test split) are held
        out for validation, chosen by a hash of their names.
        """
        if split == "all":
            return self.photos
        if "val" in self.splits:
            return [p for p in self.photos if p.split == split]
        return [p for p in self.photos if ("test" if p.split == "test" else split_of(p.name, val_fraction)) == split]


def list_photos(spec: str, cache: str | None = None) -> Listing:
    """List the photographs of a source.

    spec: a folder; a glob of .tar files, or several globs separated by commas, each with an optional share, as in
    `a-*.tar,b-*.tar@2`; `demo`; or a name of `NAMED_SETS`, which is downloaded into the folder `cache` on first use.
    Raises UserError if it is none of these, has no photographs, a share outside of `SHARES`, or ambiguous splits (see
    `common.data.splits`).
    """
    if spec == "demo":
        return _list_demo()
    if spec in NAMED_SETS:
        return _list_named(spec, cache)
    path = Path(spec).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, or a folder above it that cannot be entered
        raise UserError(
            f"source {spec} cannot be read ({error.strerror}): check the path and its permissions"
        ) from None
    if is_folder:
        return _list_folder(spec, path)
    if any(".tar" in os.path.basename(part) for part in spec.split(",")):
        return _list_shards(spec)
    if exists:
        raise UserError(f"source {spec} is a single file: give its folder, or tar shards ending in .tar")
    raise UserError(
        f"source {spec} is neither a folder, nor tar shards (*.tar), nor one of: demo, {', '.join(NAMED_SETS)}"
    )


def _list_folder(spec: str, root: Path) -> Listing:
    photos: list[Photo] = []
    skipped: list[tuple[str, str]] = []

    def failed(path: Path, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise UserError(f"{path} cannot be read ({error.strerror}): make it readable, or take it out of {spec}")
        skipped.append((path.relative_to(root).as_posix(), "missing"))  # deleted meanwhile, or a broken link

    for entry in walk(root, failed, links=True):
        path = Path(entry.path)
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() not in SUFFIXES:
            skipped.append((name, "not a picture file"))
            continue
        try:
            stat = entry.stat()
        except OSError as error:
            failed(path, error)
            continue
        if stat.st_size > MAX_BYTES:
            skipped.append((name, _TOO_LARGE))
            continue
        photos.append(Photo(name, f"{stat.st_size}:{stat.st_mtime_ns}", path.read_bytes))
    if not photos:
        others = f" (only {len(skipped)} other files)" if skipped else ""
        hint = f": did you mean '{spec}/*.tar'?" if any(n.endswith(".tar") for n, _ in skipped) else ""
        raise UserError(f"no picture files in {spec}{others}{hint or ': looked for ' + ', '.join(SUFFIXES)}")
    splits = folder_splits(spec, [p.name for p in photos])
    return Listing(spec, [replace(p, split=s) for p, s in zip(photos, splits, strict=True)], skipped)


def _list_shards(spec: str) -> Listing:
    sources: dict[str, tuple[str, float]] = {}  # path -> (pattern, share) of the first source that it belongs to
    for pattern, share in _shares(spec):
        found = sorted(glob.glob(os.path.expanduser(pattern)))
        if not found:
            raise UserError(f"no tar shard matches {pattern}: check the path")
        for path in found:
            sources.setdefault(path, (pattern, share))
    photos, skipped, seen = [], [], set()
    paths = list(sources)
    for path, split in zip(paths, shard_splits(spec, paths), strict=True):
        mtime, members = _tar_members(path)
        for name, offset, size in members:
            name = f"{split}/{name}" if split else name  # shards of two splits may use the same names
            if not name.lower().endswith(SUFFIXES):
                skipped.append((name, "not a picture file"))
            elif size > MAX_BYTES:
                skipped.append((name, _TOO_LARGE))
            elif name in seen:
                skipped.append((name, "name seen before"))
            else:
                seen.add(name)
                stamp = f"{size}:{offset}:{mtime}"
                photos.append(Photo(name, stamp, _range_reader(path, offset, size), split, (), *sources[path]))
    if not photos:
        raise UserError(f"no picture files in the shards {spec} ({len(skipped)} other files)")
    if not any(p.split for p in photos):
        splits = folder_splits(spec, [p.name for p in photos], strict=False)
        photos = [replace(p, split=s) for p, s in zip(photos, splits, strict=True)]
    return Listing(spec, photos, skipped)


def _shares(spec: str) -> Iterator[tuple[str, float]]:
    """(pattern, share) of each source of a spec of tar shards."""
    for part in filter(None, (part.strip() for part in spec.split(","))):
        pattern, _, text = part.rpartition("@") if _SHARE.search(part) else (part, "", "1")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not SHARES[0] <= share <= SHARES[1]:
            raise UserError(f"source {part} has the share {text!r}: expected a number from {SHARES[0]} to {SHARES[1]}")
        yield pattern, share


def without_shares(spec: str) -> str:
    """The source without the shares of its parts."""
    return _SHARE.sub("", spec)


def _tar_members(path: str) -> tuple[int, list[tuple[str, int, int]]]:
    """Time of the last change in nanoseconds, and (name, offset, size) of each file in an uncompressed tar.

    Raises UserError if it is damaged or incomplete.

    tarfile stops at a damaged header without an error, so the end-of-archive block is checked here.
    """
    try:
        mtime = os.stat(path).st_mtime_ns
        with tarfile.open(path, "r:") as archive:
            members = [(m.name, m.offset_data, m.size) for m in archive if m.isfile()]
            last = archive.getmembers()[-1:]  # or no member
        with open(path, "rb") as file:
            file.seek(max((m.offset_data + (m.size + 511) // 512 * 512 for m in last), default=0))
            marker = file.read(512)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"shard {path} is not a readable tar ({one_sentence(error)}): get it again") from None
    if marker != bytes(512):
        raise UserError(f"shard {path} is damaged or cut short after {len(members)} files: get it again")
    return mtime, members


def _range_reader(path: str, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


# (package, file in it, split): photographs that come with scikit-image, scikit-learn and matplotlib. The two views of
# the motorcycle show one scene, so they are in one split.
_DEMO = (
    ("skimage", "data/astronaut.png", "train"),
    ("skimage", "data/chelsea.png", "train"),
    ("skimage", "data/coffee.png", "train"),
    ("skimage", "data/ihc.png", "train"),
    ("skimage", "data/motorcycle_left.png", "train"),
    ("skimage", "data/motorcycle_right.png", "train"),
    ("skimage", "data/retina.jpg", "train"),
    ("skimage", "data/rocket.jpg", "train"),
    ("sklearn", "datasets/images/flower.jpg", "train"),
    ("sklearn", "datasets/images/china.jpg", "val"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "val"),
)


def _list_demo() -> Listing:
    """Eleven photographs, each as a whole square and as nine overlapping tiles. It is an example, not a benchmark."""
    tiles = ((0.0, 0.0, 1.0), *((x / 4, y / 4, 0.5) for y in range(3) for x in range(3)))
    photos = []
    require(*(package for package, _, _ in _DEMO))
    for package, file, split in _DEMO:
        found = importlib.util.find_spec(package)
        path = Path(found.origin).parent / file if found and found.origin else None
        if path is None or not path.exists():
            raise UserError(f"the demo photograph {file} is missing from the package {package}: reinstall it")
        photos.append(Photo(path.name, str(path.stat().st_size), path.read_bytes, split, tiles))
    return Listing("demo", photos, [])


# name -> (library that downloads the set, its name there)
NAMED_SETS = {
    "cifar10": ("torchvision", "CIFAR10"),
    "stl10": ("torchvision", "STL10"),
    "places365": ("torchvision", "Places365"),
    "imagenette": ("fastai", "IMAGENETTE_160"),
    "coco_sample": ("fastai", "COCO_SAMPLE"),
}


def _list_named(spec: str, cache: str | None) -> Listing:
    library, name = NAMED_SETS[spec]
    require(library)
    root = cache_dir(cache) / "sets"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{spec}.lock"):  # only one process downloads it
            if library == "fastai":
                from fastai.data.external import URLs, untar_data  # takes seconds to import

                return _list_folder(spec, untar_data(getattr(URLs, name), data=root))
            return Listing(spec, list(_torchvision_photos(name, root / spec)), [])
    except UserError:
        raise
    except Exception as error:  # network libraries raise many types
        raise UserError(
            f"the set {spec} could not be loaded through {library} ({one_sentence(error)}): it is downloaded at"
            " its first use, so check the network, or give a folder or shards instead"
        ) from None


def _torchvision_photos(name: str, root: Path) -> Iterator[Photo]:
    from torchvision import datasets

    root.mkdir(exist_ok=True)
    loader = getattr(datasets, name)
    parts = {
        "CIFAR10": {"train": {"train": True}, "val": {"train": False}},
        "STL10": {"train": {"split": "train+unlabeled"}, "val": {"split": "test"}},
        "Places365": {
            "train": {"split": "train-standard", "small": True},
            "val": {"split": "val", "small": True},
        },
    }[name]
    for split, options in parts.items():
        have = root / f".{split}.complete"
        dataset = loader(str(root), download=not have.exists(), **options)
        have.touch()
        for i in range(len(dataset)):
            yield Photo(f"{split}/{i:07d}", name, _dataset_reader(dataset, i), split)


def _dataset_reader(dataset: object, index: int) -> Callable[[], bytes]:
    def read() -> bytes:
        import io

        out = io.BytesIO()
        dataset[index][0].convert("RGB").save(out, "PPM")  # type: ignore[index]
        return out.getvalue()

    return read


def cache_dir(given: str | None) -> Path:
    """The folder for packs and downloads: the given one, else $COLORIZATION_CACHE, else ~/.cache/colorization-lab."""
    chosen = given or os.environ.get("COLORIZATION_CACHE") or "~/.cache/colorization-lab"
    return Path(chosen).expanduser()
