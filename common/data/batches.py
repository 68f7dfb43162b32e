"""Training batches: which photographs a step uses, and their transfer to the device, where they are augmented."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch

from common.colorizer import Batch
from common.data.augment import AugmentConfig, augment
from common.data.degradations import NOISE
from common.data.packing import Pack, open_pack
from common.data.sources import list_photos, without_shares
from common.utils.errors import UserError
from common.utils.options import check_value
from common.utils.progress import Progress


@dataclass
class DataConfig:
    """The photographs to train and validate on.

    Attributes:
        train: a folder, tar shards (a glob or several, with commas), a named set, or `demo`. A share after a glob is
            the rate at which each of its photographs is drawn, relative to others (default: 1; 0.01 to 100): with
            `a-*.tar,b-*.tar@2`, each photograph of b is drawn twice as often as each of a.
        grey: for families that learn from unpaired photographs: a source of which only the lightness is used. Default:
            half of the training photographs; only the other half is then used in color.
        val: a source for validation. Default: the validation split of `train`; if it has none, a part of `train`,
            chosen by a hash of the file names, is held out.
        size: side of the training square, in pixels.
        margin: packed pixels beyond `size` for random crops, as a fraction of it.
        max_enlargement: photographs that would be enlarged by a larger factor to be packed for training are left out.
            Photographs for validation are not.
        val_fraction: fraction that is held out if `train` has no validation split.
        val_limit: largest number of photographs in a validation during training.
        train_limit: largest number of photographs to train on (default: all). They are chosen by a hash of their files,
            and a smaller selection is part of a larger one.
        cache: folder for packs and downloads (default: $COLORIZATION_CACHE, else ~/.cache/colorization-lab).
        workers: number of decoding threads while packing (default: one per processor).
    """

    train: str = "demo"
    grey: str | None = None
    val: str | None = None
    size: int = 64
    margin: float = 0.125
    max_enlargement: float = 1.25
    val_fraction: float = 0.1
    val_limit: int = 500
    train_limit: int | None = None
    cache: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        check_value("data.size", self.size, 16 <= self.size <= 4096, "16 to 4096 pixels")
        check_value("data.margin", self.margin, 0 <= self.margin <= 1, "a share in [0, 1]")
        check_value("data.max_enlargement", self.max_enlargement, self.max_enlargement >= 1, "a factor of 1 or more")
        if self.val and self.val != without_shares(self.val):
            raise UserError(f"data.val is {self.val}: shares are for data.train and data.grey, leave them out")
        check_value("data.val_fraction", self.val_fraction, 0 < self.val_fraction < 1, "a share in (0, 1)")
        check_value("data.val_limit", self.val_limit, self.val_limit >= 1, "1 or more")
        limit = self.train_limit
        check_value("data.train_limit", limit, limit is None or limit >= 1, "1 or more")
        check_value("data.workers", self.workers, self.workers is None or self.workers >= 1, "1 or more")


def training_packs(config: DataConfig, progress: Progress) -> tuple[Pack, Pack]:
    """Open or create the packs of a run: (training pack, with its margin for crops; validation pack).

    Photographs of the validation pack are held out from the training pack. Raises UserError if no color photograph is
    left to train on.
    """
    packed = config.size + round(config.size * config.margin)
    listing = list_photos(config.train, config.cache)
    val_listing = list_photos(config.val, config.cache) if config.val else listing
    options = {"cache": config.cache, "workers": config.workers}
    part = "all" if config.val and not listing.has_split else "train"
    held_out = 0.0 if config.val else config.val_fraction
    with progress.task(f"packing {config.train}") as report:
        limit = config.max_enlargement
        train = open_pack(
            listing, packed, part, val_fraction=held_out, max_enlargement=limit, progress=report, **options
        )
    _say_too_small(train, config, progress)
    with progress.task(f"packing {val_listing.spec}") as report:
        val_part = "all" if config.val and not val_listing.has_split else "val"  # never test
        val = open_pack(
            val_listing, config.size, val_part, val_fraction=config.val_fraction, progress=report, **options
        )
    if not len(train.color_indices):
        raise UserError(f"all {len(train)} photographs of {config.train} are grey: there is no color to learn")
    train = train.excluding(val)
    if not len(train.color_indices):
        raise UserError(
            f"all photographs of {config.train} are in {val_listing.spec} too: leave data.val out to hold out a part"
        )
    return train if config.train_limit is None else train.limited(config.train_limit), val


def _say_too_small(pack: Pack, config: DataConfig, progress: Progress) -> None:
    if count := sum(why.startswith("smaller than") for _, why in pack.manifest["left_out"]):
        progress.say(
            f"{pack.manifest['source']}: {count} photographs are left out of training, because they would be enlarged"
            f" to {pack.size} px by a factor above {config.max_enlargement:g} (data.max_enlargement)"
        )


class GreyPhotographs(NamedTuple):
    """The photographs of an unpaired run: which are used as grey photographs, and which in color."""

    images: np.ndarray  # uint8 [N, S, S, 3]
    indices: np.ndarray  # int64 [n]: which of `images` are used
    color_indices: np.ndarray  # int64 [m]: photographs of the training pack that are used in color
    fingerprints: np.ndarray  # uint8 [n, 16], of the grey photographs
    shares: np.ndarray | None  # float64 [n], see `Pack.shares`
    content: str  # identifies the grey photographs, to check on resuming that they are the same


def grey_photographs(config: DataConfig, train: Pack, val: Pack, progress: Progress) -> GreyPhotographs:
    """Select the grey photographs of an unpaired run: those of `config.grey`, else every second training photograph.

    Photographs that are used for validation or in color are excluded. Raises UserError if no photograph is left.
    """
    if config.grey is None:
        if len(train.color_indices) < 2:
            raise UserError(
                f"{config.train} has {len(train.color_indices)} color photograph: unpaired training takes two or"
                " more, or another source as data.grey"
            )
        grey, color = train.color_indices[1::2], train.color_indices[::2]
        return GreyPhotographs(
            train.images, grey, color, train.fingerprints[grey], _of(train.shares, grey), "every other"
        )
    listing = list_photos(config.grey, config.cache)
    with progress.task(f"packing {config.grey}") as report:
        part = "train" if listing.has_split else "all"
        options = {"cache": config.cache, "workers": config.workers}
        limit = config.max_enlargement
        pack = open_pack(listing, train.size, part, val_fraction=0.0, max_enlargement=limit, progress=report, **options)
    _say_too_small(pack, config, progress)
    held_out = pack.excluding(val).held_out | pack.excluding(train).held_out
    if held_out.all():
        raise UserError(
            f"all photographs of {config.grey} are used for validation or in color: give other ones as data.grey"
        )
    progress.say(f"{pack.describe()}, of which only the lightness is used")
    indices, content = np.flatnonzero(~held_out), pack.manifest["content"]
    return GreyPhotographs(
        pack.images, indices, train.color_indices, pack.fingerprints[indices], _of(pack.shares, indices), content
    )


def _of(shares: np.ndarray | None, indices: np.ndarray) -> np.ndarray | None:
    return None if shares is None else shares[indices]


Runs = tuple[tuple[float, int], ...]  # (share, number of consecutive photographs that have it)


def runs_of(shares: np.ndarray | None) -> Runs:
    """The shares of photographs, float64 [n], in a form that can be hashed. Empty if they are equal."""
    runs = tuple((float(share), len(list(same))) for share, same in groupby([] if shares is None else shares))
    return runs if len(runs) > 1 else ()


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int, runs: Runs = ()) -> np.ndarray:
    rng = np.random.default_rng((seed, epoch))
    if not runs:
        return rng.permutation(count)
    # systematic sampling: `count` points at distance 1 on a line, of which each photograph covers a length of `weight`
    shares, lengths = np.array(runs).T
    starts = np.cumsum([0, *lengths.astype(int)])
    photographs = np.concatenate([a + rng.permutation(b - a) for a, b in pairwise(starts)])
    weights = np.repeat(shares * count / (shares @ lengths), lengths.astype(int))
    drawn = np.searchsorted(np.cumsum(weights), np.arange(count) + rng.random(), side="right")
    return rng.permutation(photographs[drawn.clip(max=count - 1)])  # rounding may exceed the end of the line


def index_stream(indices: np.ndarray, step: int, batch_size: int, seed: int, runs: Runs = ()) -> np.ndarray:
    """The indices of the photographs that step `step` (from 0) uses.

    Every epoch has as many draws as there are `indices`. Without shares, it is a permutation of them. With shares, a
    photograph of share s is drawn s / (mean of all shares) times in an epoch, rounded up or down at random, such that
    the draws of a run of photographs with equal shares differ by less than 1 from the sum of these numbers.

    A pure function of its arguments, so that training can resume at any step. runs: the shares of `indices`, see
    `runs_of`. Returns int64 [batch_size].
    """
    first = step * batch_size
    out: list[np.ndarray] = []
    while batch_size > 0:
        epoch, start = divmod(first, len(indices))
        out.append(indices[_order(seed, epoch, len(indices), runs)[start : start + batch_size]])
        first, batch_size = first + len(out[-1]), batch_size - len(out[-1])
    return np.concatenate(out)


def derived_seed(*parts: int) -> int:
    """Hash several non-negative integers, such as (seed, step, shard), to a 32-bit seed."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class Gathered(NamedTuple):
    """One shard of a batch before augmentation, in host memory."""

    images: torch.Tensor  # uint8 [n, S, S, 3], or their indices, int64 [n], if the pack is in GPU memory
    noise: torch.Tensor  # float32 [n, 8]
    damage_noise: torch.Tensor | None  # float32 [n, 4]; None without damage
    grey_images: torch.Tensor | None  # as `images`; None in paired runs
    grey_noise: torch.Tensor | None  # float32 [n, 8]


class TrainingData:
    """The augmented batches of a run.

    The batch of a step is divided into equal shards, one for each process and accumulation step. A shard is a pure
    function of (seed, step, shard), so two processes use the same data as one process with two accumulation steps.

    Args:
        pack: the training photographs.
        size: side of the training square, in pixels.
        batch_size: photographs per step, over all shards.
        seed: determines the order of the photographs and their augmentation.
        config: the augmentation.
        device: where batches are augmented.
        grey: the photographs of an unpaired run.
    """

    def __init__(
        self,
        pack: Pack,
        size: int,
        batch_size: int,
        seed: int,
        config: AugmentConfig,
        device: torch.device,
        grey: GreyPhotographs | None = None,
    ) -> None:
        self.size, self.batch_size, self.seed, self.config, self.device = size, batch_size, seed, config, device
        self.indices = grey.color_indices if grey else pack.color_indices
        hashes = [pack.fingerprints[self.indices], *([grey.fingerprints] if grey else [])]
        self.fingerprints = np.concatenate(hashes)  # uint8 [n, 16], of all photographs that are trained on
        self.content = pack.manifest["content"] + (f", grey {grey.content}" if grey else "")
        self._color = _PackedImages(pack.images, device)
        self._grey = grey and (self._color if grey.images is pack.images else _PackedImages(grey.images, device))
        self._grey_indices = grey and grey.indices
        self._runs, self._grey_runs = runs_of(_of(pack.shares, self.indices)), runs_of(grey and grey.shares)

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """Shard `shard` of `shards` of the batch of step `step` (from 0), on the device."""
        return self.augmented(self.gather(step, shard, shards))

    def gather(self, step: int, shard: int = 0, shards: int = 1) -> Gathered:
        """Read the photographs of a shard and draw its random numbers. It can be called from another thread."""
        part = slice(shard * self.batch_size // shards, (shard + 1) * self.batch_size // shards)
        indices = index_stream(self.indices, step, self.batch_size, self.seed, self._runs)[part]
        # damage has its own random numbers, so that turning it on does not change the crops
        damage_noise = self._noise(step, 2, NOISE, part) if self.config.damage else None
        grey_images = grey_noise = None
        if self._grey is not None:
            seed = derived_seed(self.seed, 3)
            others = index_stream(self._grey_indices, step, self.batch_size, seed, self._grey_runs)[part]
            grey_images, grey_noise = self._grey.gather(others), self._noise(step, 3, 8, part)
        return Gathered(
            self._color.gather(indices), self._noise(step, 1, 8, part), damage_noise, grey_images, grey_noise
        )

    def augmented(self, gathered: Gathered) -> Batch:
        """Copy a shard to the device and augment it there."""
        noise, damage_noise, grey_noise = (
            x if x is None else x.to(self.device, non_blocking=True)
            for x in (gathered.noise, gathered.damage_noise, gathered.grey_noise)
        )
        L, ab = augment(self._color.on_device(gathered.images), noise, self.size, self.config, damage_noise)
        if self._grey is None:
            return Batch(L, ab)
        images = self._grey.on_device(gathered.grey_images)
        return Batch(L, ab, augment(images, grey_noise, self.size, self.config, damage_noise)[0])

    def _noise(self, step: int, stream: int, count: int, part: slice) -> torch.Tensor:
        """Random numbers for the photographs `part` of a step's batch: float32 [n, count], uniform in [0, 1).

        stream: selects an independent sequence.
        """
        drawn = np.random.default_rng((self.seed, step, stream)).random((self.batch_size, count), dtype=np.float32)
        return _pinned(torch.from_numpy(drawn[part]), self.device)


class _PackedImages:
    """The images of a pack. They are copied to the GPU once if they need less than a quarter of its free memory."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.images, self.device = images, device
        self.resident: torch.Tensor | None = None
        if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] // 4:
            self.resident = torch.from_numpy(np.array(images)).to(device)

    def gather(self, indices: np.ndarray) -> torch.Tensor:
        if self.resident is not None:
            return _pinned(torch.from_numpy(indices), self.device)
        # np.take releases the GIL while it copies, unlike indexing
        return _pinned(torch.from_numpy(np.asarray(np.take(self.images, indices, axis=0))), self.device)

    def on_device(self, gathered: torch.Tensor) -> torch.Tensor:
        gathered = gathered.to(self.device, non_blocking=True)
        return gathered if self.resident is None else self.resident[gathered]


def _pinned(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    return x.pin_memory() if device.type == "cuda" else x
