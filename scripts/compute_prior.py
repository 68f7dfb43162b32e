"""Compute the color prior of photographs, from which class rebalancing and auc_rebalanced compute their weights.

examples:
  python -m scripts.compute_prior --data demo --out prior.json
  python -m scripts.compute_prior --data 'train-*.tar' --size 64 --out prior.json --picture prior.png
  python -m scripts.train --config experiments/classification/rebalanced.yaml --model.prior prior.json

Grey photographs are skipped. The picture shows the prior and the class weights in the ab plane.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.utils.errors import UserError, entry_point
from scripts.arguments import Parser, positive


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, count, write, print."""
    parser = Parser("python -m scripts.compute_prior", __doc__)
    parser.add_argument("--data", required=True, help="folder, tar shards, named set, or demo")
    parser.add_argument("--split", choices=["train", "val", "all"], default="train",
                        help="part of the source (default: train)")  # fmt: skip
    parser.add_argument("--size", type=positive, default=64, help="side of the squares that are counted")
    parser.add_argument("--grid", type=positive, default=10, help="side of the square ab bins, in ab units")
    parser.add_argument("--sigma", type=float, default=5.0, help="standard deviation of the smoothing, in ab units")
    parser.add_argument("--lambda", dest="uniform_share", type=float, default=0.5,
                        help="share of the uniform distribution in the class weights of the picture")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help="PNG to draw (default: beside OUT)")
    parser.add_argument("--cache", help="folder of preprocessed photographs (default: ~/.cache/colorization-lab)")
    args = parser.parse_args(argv)
    if not 0 <= args.sigma <= 100:
        raise UserError(f"--sigma is {args.sigma}: expected 0 to 100 ab units")
    if not 16 <= args.size <= 4096:
        raise UserError(f"--size is {args.size}: expected 16 to 4096 pixels")
    picture = args.picture or args.out.with_suffix(".png")
    if picture.suffix.lower() != ".png":
        raise UserError(f"--picture is {picture}: expected a name that ends in .png")
    if picture.resolve() == args.out.resolve():
        raise UserError(f"--out is {args.out}, which is also the picture: give the JSON file a name such as prior.json")

    import numpy as np
    from PIL import Image

    from classification.rebalancing import class_weights
    from common.color.ab_bins import ABBins
    from common.data.color_prior import ab_planes, compute_prior
    from common.data.packing import open_pack
    from common.data.sources import list_photos
    from common.utils.progress import Progress

    bins = ABBins(args.grid)
    if not 0 <= args.uniform_share <= 1:
        raise UserError(f"--lambda is {args.uniform_share:g}: expected a share in [0, 1]")
    progress = Progress()
    listing = list_photos(args.data, args.cache)
    with progress.task(f"packing {args.data}") as report:
        pack = open_pack(listing, args.size, args.split, cache=args.cache, progress=report)
    progress.say(pack.describe())
    prior = compute_prior(pack, args.grid, args.sigma)
    weights = class_weights(prior.p, args.uniform_share).where(prior.p > 0, 0)  # unseen bins are not drawn
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        prior.save(args.out)
        sheets = [
            ab_planes({"prior, smoothed": prior.p}, args.grid, "share of pixels"),
            ab_planes({f"class weights, lambda {args.uniform_share:g}": weights}, args.grid, "weight"),
        ]
        Image.fromarray(np.concatenate(sheets, axis=1)).save(picture)
    except OSError as error:
        raise UserError(f"{args.out} cannot be written ({error.strerror}): choose another --out") from None
    seen = int((prior.p > 0).sum())
    order = prior.p.argsort(descending=True)[:5].tolist()
    common = ", ".join(f"a {bins.ab_bins[i, 0]:.0f} b {bins.ab_bins[i, 1]:.0f} ({prior.p[i]:.1%})" for i in order)
    print(f"{prior.describe()}: {seen} of {bins.num_bins} bins seen; most frequent: {common}")
    print(f"class weights from {weights[prior.p > 0].min():.3g} to {weights.max():.3g}")
    print(f"written: {args.out}, {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
