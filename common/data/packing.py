"""Packs: the photographs of a source, decoded and resized once and stored in a uint8 memmap with a manifest.

A pack is written under a temporary name and renamed when it is complete, so an incomplete one is never used. A lock
prevents two processes from writing the same pack.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from common.color.lab import rgb8_to_lab
from common.data.fingerprints import BYTES, fingerprints
from common.data.sources import Listing, Photo, cache_dir, list_photos, without_shares
from common.data.splits import Split
from common.imaging.header import MAX_PIXELS, TooManyPixels
from common.imaging.read import open_image, square
from common.utils.errors import PictureError, UserError, one_sentence
from common.utils.files import locked

_VERSION = 5
_MANIFEST = {
    **dict.fromkeys(("source", "split", "content"), str),
    **dict.fromkeys(("count", "size", "photographs", "grey", "smaller"), int),
    **dict.fromkeys(("mean_ab", "mean_ab_with_grey", "left_out"), list),
}
GREY_MAX_AB = 5.0  # a photograph with max |ab| below this is grey
_CHUNK_BYTES = 16_000_000  # of images that are packed at once; their float Lab takes about twenty times this
_PARALLEL_PIXELS = 16_000_000  # larger pictures are decoded by one thread: the largest takes more than a gigabyte


@dataclass(frozen=True)
class Pack:
    """An open pack. `images` is read from disk on access, so memory does not grow with their number."""

    images: np.ndarray  # uint8 [N, S, S, 3], a read-only memmap
    names: list[str]
    grey: np.ndarray  # bool [N]
    digests: list[str]  # of each photograph's file
    fingerprints: np.ndarray  # uint8 [N, 16], see `common.data.fingerprints`
    manifest: dict
    held_out: np.ndarray | None = None  # bool [N]: photographs that are excluded from training or evaluation
    shares: np.ndarray | None = None  # float64 [N], of their sources (see `list_photos`); None if all are equal

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        return self.images.shape[1]

    @property
    def indices(self) -> np.ndarray:
        """Indices, int64 [n], of the photographs that are not held out."""
        return np.arange(len(self)) if self.held_out is None else np.flatnonzero(~self.held_out)

    @property
    def photographs(self) -> list[str]:
        """Name of the source photograph of each item, which differs from the item's name only for tiles."""
        tiled = self.manifest.get("photographs", len(self)) < len(self)
        return [name.rpartition("#")[0] or name for name in self.names] if tiled else list(self.names)

    @property
    def color_indices(self) -> np.ndarray:
        """Indices, int64 [n], of the photographs for training: those that are neither grey nor held out."""
        return self.indices[~self.grey[self.indices]]

    def excluding(self, other: Pack) -> Pack:
        """A copy of the pack that holds out from training all photographs whose file is also in the other pack."""
        digests = set(other.digests)
        return replace(self, held_out=np.array([d in digests for d in self.digests], dtype=bool))

    def limited(self, count: int) -> Pack:
        """A copy of the pack that holds out from training all but `count` color photographs.

        These have the smallest hashes of their files, so a smaller selection is part of a larger one. The pack itself
        is returned if it has no more than `count`.
        """
        color = self.color_indices
        if count >= len(color):
            return self
        chosen = color[np.argsort([self.digests[i] for i in color], kind="stable")[:count]]
        held_out = np.ones(len(self), dtype=bool)
        held_out[chosen] = False
        means = [self.lab(part)[1].double().mean(dim=(2, 3)) for part in np.array_split(chosen, 1 + count // 256)]
        manifest = self.manifest | {"limit": count, "mean_ab": torch.cat(means).mean(dim=0).tolist()}
        return replace(self, held_out=held_out, manifest=manifest)

    def lab(self, indices: np.ndarray | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """CIELAB of some photographs: (L [n, 1, S, S], ab [n, 2, S, S]), float32."""
        lab = rgb8_to_lab(torch.from_numpy(np.array(self.images[indices])).permute(0, 3, 1, 2))
        return lab[:, :1], lab[:, 1:]

    def describe(self) -> str:
        """Content of the pack and number of skipped files, in one line."""
        m = self.manifest
        line = f"{m['source']} ({m['split']}): {counted(m['count'], m['photographs'])} at {self.size} px"
        if self.grey.any():
            line += f", {int(self.grey.sum())} of them grey"
        if "limit" in m:
            line += f", {m['limit']} of them used (data.train_limit)"
        elif len(self.indices) < len(self):
            line += f", {len(self) - len(self.indices)} held out"
        reasons = Counter(why for _, why in m["left_out"])
        if reasons:
            line += "; left out: " + ", ".join(f"{n} {why}" for why, n in reasons.most_common(4))
        return line


def counted(squares: int, photographs: int) -> str:
    """ "1000 photographs", or "20 squares of 2 photographs" if there are several squares of each."""
    noun = "photograph" if photographs == 1 else "photographs"
    return f"{photographs} {noun}" if squares == photographs else f"{squares} squares of {photographs} {noun}"


def open_pack(
    source: str | Listing,
    size: int,
    split: Split = "all",
    *,
    val_fraction: float = 0.1,
    max_enlargement: float = math.inf,
    cache: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """Open the pack of a source's photographs, or create it if there is none.

    Args:
        source: a source as `list_photos` takes it, or its listing.
        size: side of the central squares to which photographs are cropped, in pixels.
        split: the split of the source.
        val_fraction: fraction for validation if the source has no validation split.
        max_enlargement: photographs, and tiles of them, that would be enlarged by a larger factor are left out.
        cache: folder for packs and downloads (default: see `cache_dir`).
        workers: number of decoding threads (default: one per processor).
        progress: called with (done, total) while packing.

    Raises:
        UserError: the split has no usable photograph, all photographs of one of several sources are too small, or the
            cache folder cannot be written.
    """
    listing = source if isinstance(source, Listing) else list_photos(source, cache)
    source = listing.spec
    photos = listing.of_split(split, val_fraction)
    if not photos:
        own = f", its own splits: {', '.join(sorted(listing.splits))}" if listing.has_split else ""
        raise UserError(
            f"source {source} has no photographs for '{split}' (of {len(listing.photos)}{own}): give another source for"
            " it, more photographs, or another validation fraction"
        )
    min_side = math.ceil(size / max_enlargement)
    parts = [_VERSION, size, [(p.name, p.stamp, p.tiles) for p in photos], *([min_side] if min_side else [])]
    key = hashlib.sha256(json.dumps(parts).encode())
    root = cache_dir(cache) / "packs"
    home = root / f"{_slug(source)}-{split}-{size}-{key.hexdigest()[:16]}"
    if not (home / "manifest.json").exists():
        with _cache_errors(root), locked(root / f".{home.name}.lock"):
            if not (home / "manifest.json").exists():  # another process may have created it meanwhile
                need = sum(max(1, len(p.tiles)) for p in photos) * size * size * 3
                left_out = list(listing.skipped)
                options = (left_out, size, min_side, workers, progress)
                _make(home, need, lambda to: _write(to, source, split, photos, *options))
    pack = _open(home, source)
    _check_sizes(photos, pack.manifest["left_out"], source, size, min_side)
    if len({p.share for p in photos}) > 1:
        share = {p.name: p.share for p in photos}
        pack = replace(pack, shares=np.array([share[name] for name in pack.photographs]))
    return pack


def _too_small(min_side: int) -> str:
    return f"smaller than {min_side} px"


def _check_sizes(photos: list[Photo], left_out: Sequence, source: str, size: int, min_side: int) -> None:
    """Raise UserError if all photographs of one of the sources are left out because they are too small."""
    small = {name for name, why in left_out if why == _too_small(min_side)}
    total = Counter(p.source or source for p in photos)
    for part, count in Counter(p.source or source for p in photos if p.name in small).items():
        if count == total[part]:
            raise UserError(
                f"all {count} photographs of {part} are {_too_small(min_side)}, too small to be enlarged to {size} px"
                " for training: leave this source out, or train at a smaller data.size"
            )


def _open(home: Path, source: str) -> Pack:
    try:
        manifest = json.loads((home / "manifest.json").read_text())
        rows = json.loads((home / "rows.json").read_text())
        _check_types(manifest, _MANIFEST)
        _check_types(rows, dict.fromkeys(("names", "grey", "digests"), list))
        shape = (manifest["count"], manifest["size"], manifest["size"], 3)
        images = np.memmap(home / "images.u8", np.uint8, mode="r").reshape(shape)
        hashes = np.fromfile(home / "fingerprints.u8", np.uint8).reshape(len(images), BYTES)
        for key, kind in {"names": str, "grey": bool, "digests": str}.items():
            if [type(value) for value in rows[key]] != [kind] * len(images):
                raise ValueError(f"{key} of other length or type")
        if not np.isfinite(np.array([manifest["mean_ab"], manifest["mean_ab_with_grey"]], float).reshape(2, 2)).all():
            raise ValueError("mean_ab not finite")
        if not all(isinstance(why, str) for _, why in manifest["left_out"]):
            raise ValueError("left_out of another type")
    except (OSError, MemoryError) as error:
        raise UserError(f"the pack {home} cannot be read ({one_sentence(error)}): check its permissions") from None
    except Exception as error:  # edited files raise many types
        why = f"no {error}" if isinstance(error, KeyError) else one_sentence(error)
        raise UserError(f"the pack {home} is damaged ({why}): delete that folder and run again") from None
    manifest["source"] = source  # its spelling may differ from the one at packing
    return Pack(images, rows["names"], np.array(rows["grey"], dtype=bool), rows["digests"], hashes, manifest)


def _check_types(values: dict, kinds: dict[str, type]) -> None:
    for key, kind in kinds.items():
        if type(values[key]) is not kind:
            raise ValueError(f"{key} of another type")


@contextmanager
def _cache_errors(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"the cache folder {root} cannot be written ({error.strerror or error}): free space there, or choose"
            " another folder with --data.cache or $COLORIZATION_CACHE"
        ) from None


def _make(home: Path, need: int, write: Callable[[Path], None]) -> None:
    """Create the folder `home` atomically: call `write` with a temporary folder, which is then renamed.

    need: bytes that `write` will write. Raises UserError if the disk has less space.
    """
    free = shutil.disk_usage(home.parent).free
    if need > free:
        raise UserError(
            f"the pack {home.name} needs {need / 1e9:.1f} GB in {home.parent}, which has {free / 1e9:.1f} GB free:"
            " choose another folder with --data.cache"
        )
    building = home.with_name(f".{home.name}.part")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed; no other process holds the lock
    building.mkdir()
    try:
        write(building)
        shutil.rmtree(home, ignore_errors=True)
        os.replace(building, home)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(
    folder: Path,
    source: str,
    split: str,
    photos: list[Photo],
    left_out: list[tuple[str, str]],
    size: int,
    min_side: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    names: list[str] = []
    digests: list[str] = []
    grey: list[bool] = []
    hashes: list[np.ndarray] = []
    content = hashlib.sha256()
    ab_sums = torch.zeros(2, 2, dtype=torch.float64)  # of all photographs, of those in color
    whole = smaller = 0
    chunk_length = _CHUNK_BYTES // (size * size * 3 * max(1, *(len(p.tiles) for p in photos)))
    chunk_length = max(1, min(256, chunk_length))
    with (
        open(folder / "images.u8", "wb") as file,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
        ThreadPoolExecutor(1) as large,
    ):
        for start in range(0, len(photos), chunk_length):
            chunk = photos[start : start + chunk_length]
            squares = []
            cut = partial(_squares, size=size, min_side=min_side, large=large)
            for photo, result in zip(chunk, pool.map(cut, chunk), strict=True):
                if isinstance(result, str):
                    left_out.append((photo.name, result))
                    continue
                cuts, digest, side = result
                cut_names = [photo.name + (f"#{i}" if i else "") for i in range(len(cuts))]
                left_out += [(n, _too_small(min_side)) for n, cut in zip(cut_names, cuts, strict=True) if cut is None]
                kept = [(n, cut) for n, cut in zip(cut_names, cuts, strict=True) if cut is not None]
                whole += bool(kept)
                smaller += bool(kept) and side < size
                names += [name for name, _ in kept]
                digests += [digest] * len(kept)
                squares += [cut for _, cut in kept]
            if squares:
                rows = np.stack(squares)
                ab = rgb8_to_lab(torch.from_numpy(rows).permute(0, 3, 1, 2))[:, 1:]
                is_grey = ab.abs().amax(dim=(1, 2, 3)) < GREY_MAX_AB
                means = ab.mean(dim=(2, 3)).double()
                ab_sums += torch.stack([means.sum(dim=0), means[~is_grey].sum(dim=0)])
                grey += is_grey.tolist()
                hashes.append(fingerprints(rows))
                content.update(rows.tobytes())
                file.write(rows.tobytes())
            if progress:
                progress(start + len(chunk), len(photos))
        file.flush()
        os.fsync(file.fileno())
    if not names:
        _check_sizes(photos, left_out, source, size, min_side)
        first = "; ".join(f"{name}: {why}" for name, why in left_out[:2])
        raise UserError(f"source {source} has no usable photograph for '{split}' ({len(left_out)} left out: {first})")
    color = len(grey) - sum(grey)
    manifest = {
        "source": source, "split": split, "size": size, "photographs": whole, "smaller": smaller,
        "count": len(names), "grey": sum(grey),
        "content": content.hexdigest()[:16], "mean_ab": (ab_sums[1] / max(1, color)).tolist(),
        "mean_ab_with_grey": (ab_sums[0] / len(names)).tolist(),
        "crop": "centre square, bicubic with antialiasing", "left_out": left_out,
    }  # fmt: skip
    np.concatenate(hashes).tofile(folder / "fingerprints.u8")
    (folder / "rows.json").write_text(json.dumps({"names": names, "grey": grey, "digests": digests}))
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _squares(photo: Photo, size: int, min_side: int, large: Executor) -> tuple[list[np.ndarray | None], str, int] | str:
    """Cut the squares of one photograph. large: the single thread in which large pictures are decoded.

    Returns (squares uint8 [size, size, 3], or None where the photograph has less than `min_side` pixels for a square;
    digest of the file; shorter side in pixels), or a reason why the photograph is skipped. The shorter side can be that
    of a JPEG decoded at a fraction of its size, which is at least `size` if the full side is.
    """
    try:
        data = photo.read()
        try:
            cuts, side = _cut(photo, data, size, min_side, _PARALLEL_PIXELS)
        except TooManyPixels:
            cuts, side = large.submit(_cut, photo, data, size, min_side, MAX_PIXELS).result()
    except PictureError as error:
        return "unreadable" if "damaged" in str(error) else str(error).replace(photo.name, "it")
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return cuts, hashlib.sha256(data).hexdigest()[:24], side


def _cut(photo: Photo, data: bytes, size: int, min_side: int, max_pixels: int) -> tuple[list[np.ndarray | None], int]:
    """(squares, shorter side) of `_squares`. Raises PictureError."""
    rgb = open_image(data, photo.name, None if photo.tiles else size, max_pixels).on_white()
    side = min(rgb.shape[:2])
    if not photo.tiles:
        return [square(rgb, size) if side >= min_side else None], side
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    cuts = []
    for x, y, share in photo.tiles:
        x0, y0, n = left + int(x * side), top + int(y * side), int(share * side)
        cuts.append(square(np.ascontiguousarray(rgb[y0 : y0 + n, x0 : x0 + n]), size) if n >= min_side else None)
    return cuts, side


def _slug(source: str) -> str:
    name = Path(without_shares(source).split(",")[0]).name
    return "".join(c if c.isalnum() else "-" for c in name)[:40].strip("-") or "source"
