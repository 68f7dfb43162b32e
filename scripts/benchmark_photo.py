"""Measure hints, variants and the repair of scratches, on photographs whose colors are known.

examples:
  python -m scripts.benchmark hints --data 'photos128-*-val.tar' --limit 100
  python -m scripts.benchmark variants --data 'photos128-*-val.tar' --limit 100 --json variants.json

`hints`: dots with the original's colors (means of 5 x 5 pixels) are set at random places, and `rmse_ab` is printed
without and with them, both with the network's features and with the edges of L alone. Then an object of random outline
is cut out of one photograph and laid on another, and one dot in it changes its color by 45 ab units: `leak` is the
share of pixels more than four pixels outside of the object that change by more than 5 ab units, `fill` that of the
pixels inside. `variants`: `rmse_ab` of one colorization, of the best of four and of the mean of the other three, and
the mean distance of two of the four, in ab units. `repair`: PSNR of grey photographs with simulated scratches and dust
(`common.data.degradations`) before and after, and of undamaged ones after.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError
from common.utils.files import check_writable, write_text
from scripts.arguments import DEFAULT_MODEL, Parser, natural, positive

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from common.colorizer import Colorizer

_DOTS = 10
_CHANGE = 45.0  # of the color of the object's dot, in ab units
_VISIBLE = 5.0  # ab units from which a pixel counts as changed
_MARGIN = 4  # pixels around the object that are not judged


def main(argv: list[str]) -> int:
    """Parse, measure, print. argv: begins with `hints`, `variants` or `repair`."""
    parser = Parser("python -m scripts.benchmark", __doc__)
    parser.add_argument("what", choices=["hints", "variants", "repair"], help="what to measure")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="an installed model, a .safetensors file or a run folder"
    )
    parser.add_argument("--data", required=True, help="folder, tar shards, named set, or demo")
    parser.add_argument("--limit", type=positive, default=100, help="number of photographs (default: 100)")
    parser.add_argument("--seed", type=natural, default=0, help="of photographs, dots, objects and variants")
    parser.add_argument("--cache", help="folder for packs (default: ~/.cache/colorization-lab)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json)

    from common.registry import load_colorizer
    from common.utils.device import machine, pick_device

    colorizer = load_colorizer(args.model, pick_device("cpu"))
    if not hasattr(colorizer, "distribution"):
        raise UserError(f"--model is {args.model}, which predicts no distribution: expected a classifier")
    photographs = read_photographs(args.data, colorizer, args.limit, args.seed, args.cache)
    measure = {"hints": measure_hints, "variants": measure_variants, "repair": measure_repair}[args.what]
    result = measure(colorizer, photographs, args.seed)
    print(f"{len(photographs)} photographs of {args.data}, {args.model}, seed {args.seed}, {machine()}")
    for name, value in result.items():
        print(f"  {name:<42} {value:.3f}")
    if args.json:
        write_text(args.json, json.dumps(result, indent=1))
    return 0


def read_photographs(
    source: str, colorizer: Colorizer, limit: int, seed: int, cache: str | None
) -> list[tuple[Tensor, Tensor]]:
    """Random photographs in color that the model was not trained on: (L [1, 1, s, s], ab [1, 2, s, s]) of each."""
    import numpy as np
    import torch

    from common.color.lab import rgb8_to_lab
    from common.data.fingerprints import resembling
    from common.data.packing import open_pack

    pack = open_pack(source, colorizer.card["size"], "all", cache=cache)
    usable = ~pack.grey
    if colorizer.fingerprints is not None:
        usable &= ~resembling(pack.fingerprints, colorizer.fingerprints)
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(usable))[:limit]
    lab = [rgb8_to_lab(torch.from_numpy(pack.images[i].copy()).permute(2, 0, 1)[None]) for i in chosen]
    return [(x[:, :1], x[:, 1:]) for x in lab]


def measure_hints(colorizer: Colorizer, photographs: list[tuple[Tensor, Tensor]], seed: int) -> dict[str, float]:
    """rmse_ab with dots, leak and fill, with and without features."""
    import numpy as np
    import torch
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        values.setdefault(name, []).append(float(value))

    for i, (L, ab) in enumerate(photographs):
        height, width = L.shape[-2:]
        smooth = ndimage.uniform_filter(ab[0].numpy(), (0, 5, 5))
        dots = [
            ((x + 0.5) / width, (y + 0.5) / height, tuple(smooth[:, y, x].tolist()))
            for y, x in zip(rng.integers(height, size=_DOTS), rng.integers(width, size=_DOTS), strict=True)
        ]
        for name, found in with_and_without(colorizer, L, dots):
            add(f"rmse_ab, {_DOTS} dots, {name}" if name else "rmse_ab, no dots", (found - ab).square().mean().sqrt())
        mask = random_outline(rng, height, width)
        composition = torch.where(torch.from_numpy(mask), photographs[i - 1][0], L)
        y, x = np.unravel_index(ndimage.distance_transform_edt(mask).argmax(), mask.shape)
        before = next(with_and_without(colorizer, composition, []))[1]
        angle = rng.uniform(0, 2 * np.pi)
        color = before[0, :, y, x].numpy() + _CHANGE * np.array([np.cos(angle), np.sin(angle)])
        dot = [((x + 0.5) / width, (y + 0.5) / height, tuple(color.tolist()))]
        outside = ~ndimage.binary_dilation(mask, iterations=_MARGIN)
        for name, found in with_and_without(colorizer, composition, dot):
            if name:
                changed = (found - before)[0].norm(dim=0).numpy() > _VISIBLE
                add(f"leak, {name}", changed[outside].mean())
                add(f"fill, {name}", changed[mask].mean())
    return {name: float(np.mean(found)) for name, found in sorted(values.items())}


def with_and_without(colorizer: Colorizer, L: Tensor, dots: list[tuple]) -> Iterator[tuple[str, Tensor]]:
    """The upsampled ab [1, 2, h, w] without dots, then with dots by the edges of L alone, then also by features."""
    from common.photo.hints import Hint, spread_hints
    from common.predictor import PredictorConfig, embed_photograph, fit_upsampling, predict_within_memory

    config, size = PredictorConfig(colorizer.card["size"]), tuple(L.shape[-2:])
    ab = predict_within_memory(colorizer, L, config)
    yield "", fit_upsampling(L, ab, size).strip(L, 0)
    hints = [Hint(*dot) for dot in dots]
    for name, features in (("edges of L", None), ("features", embed_photograph(colorizer, L, config))):
        upsampling = fit_upsampling(L, ab, size, lambda L, ab, f=features: spread_hints(L, ab, hints, f))
        yield name, upsampling.strip(L, 0)


def random_outline(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A connected shape in the middle with a wavy outline, about a fourth of the picture: bool [height, width]."""
    import numpy as np
    from scipy import ndimage

    waves = ndimage.gaussian_filter(rng.normal(size=(height, width)), max(height, width) / 10)
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((x / width - 0.5) / 0.3, (y / height - 0.5) / 0.3)
    return radius + 0.25 * waves / waves.std() < 1


def measure_variants(colorizer: Colorizer, photographs: list[tuple[Tensor, Tensor]], seed: int) -> dict[str, float]:
    """rmse_ab of one and of the best of four, and the distance between them."""
    import itertools

    import numpy as np

    from common.photo.variants import predict_variants
    from common.predictor import PredictorConfig, fit_upsampling, predict_within_memory

    config, rows = PredictorConfig(colorizer.card["size"]), []
    for L, ab in photographs:
        predicted = [predict_within_memory(colorizer, L, config), *predict_variants(colorizer, L, config, 3, seed)]
        four = [fit_upsampling(L, one, tuple(L.shape[-2:])).strip(L, 0) for one in predicted]
        errors = [float((one - ab).square().mean().sqrt()) for one in four]
        distance = np.mean([float((a - b).norm(dim=1).mean()) for a, b in itertools.combinations(four, 2)])
        rows.append((errors[0], min(errors), np.mean(errors[1:]), distance))
    names = ("rmse_ab of one", "rmse_ab of the best of four", "rmse_ab of the other three", "distance of two")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def measure_repair(colorizer: Colorizer, photographs: list[tuple[Tensor, Tensor]], seed: int) -> dict[str, float]:
    """PSNR of scratched photographs before and after their repair, and of undamaged ones. Only L is used."""
    import numpy as np

    from common.color.gamut import ab_to_rgb8
    from common.data.degradations import damage, index_noise
    from common.photo.repair import repair

    def grey(L: Tensor) -> np.ndarray:
        return ab_to_rgb8(L, L.expand(-1, 2, -1, -1) * 0)[0].permute(1, 2, 0).numpy()

    def psnr(one: np.ndarray, other: np.ndarray) -> float:
        return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-4)))

    rows = []
    for i, (L, ab) in enumerate(photographs):
        clean, scratched = grey(L), grey(damage(L, ab, "scratches", index_noise(np.array([i]), seed)))
        again, mask = repair(clean)
        rows.append((psnr(scratched, clean), psnr(repair(scratched)[0], clean), mask.mean(), psnr(again, clean)))
    names = ("PSNR, scratched", "PSNR, repaired", "share of undamaged ones that is changed", "PSNR, undamaged")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
