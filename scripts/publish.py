"""Write weights for publication: in 16 bits, with a name, and without paths of the training machine.

examples:
  python -m scripts.publish runs/mine --name mine --out mine.safetensors
  python -m scripts.publish runs/not_rebalanced/best.safetensors --name calm64 --shift 0.4 --temperature 1 \\
      --out common/weights/calm64.safetensors

Batch-norm statistics and biases stay in 32 bits. Files in common/weights are installed models, which `colorize models`
lists.
--shift makes a classifier that was trained without rebalancing predict rare colors more often: it adds SHIFT times the
logarithm of the class weights to the logits. For an ideal classifier this equals training with rebalancing. It replaces
the shift that the weights have. Those of a training that started from shifted weights (--init) have the shift of these.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError, entry_point
from scripts.arguments import Parser, above_zero

if TYPE_CHECKING:
    from torch import Tensor

    from common.colorizer import Colorizer


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, change, write, print."""
    parser = Parser("python -m scripts.publish", __doc__)
    parser.add_argument("model", metavar="MODEL", help="a run folder or a .safetensors file")
    parser.add_argument("--name", required=True, help="title in tables and in the metadata of pictures")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors file to write")
    parser.add_argument("--shift", type=float, help="0 to 1, times log(class weights) added to logits (default: as is)")
    parser.add_argument("--data", help="source to measure the written weights on; the card stores the scores")
    parser.add_argument("--cache", help="folder of preprocessed photographs (default: ~/.cache/colorization-lab)")
    parser.add_argument("--temperature", type=above_zero, metavar="T", help="of a classifier (default: as trained)")
    args = parser.parse_args(argv)
    if args.shift is not None and not 0 <= args.shift <= 1:
        raise UserError(f"--shift is {args.shift:g}: expected a share from 0 to 1")
    if args.out.suffix != ".safetensors" or not args.out.resolve().parent.is_dir():
        raise UserError(f"--out is {args.out}: expected a name that ends in .safetensors, in a folder that exists")

    from common.checkpoint import published_state, save_weights
    from common.registry import load_colorizer

    colorizer = load_colorizer(args.model)
    change(colorizer, args.model, args.shift, args.temperature)
    card = portable(colorizer.card) | {"name": args.name}
    state = {
        key: value.half() if value.is_floating_point() and value.ndim >= 2 else value
        for key, value in published_state(colorizer).items()
    }
    if args.data:
        card |= measured(colorizer, state, args.data, args.cache, args.temperature)
    elif args.shift is not None or args.temperature:
        card["validation"] = {}  # the scores of the unchanged model no longer apply
    save_weights(args.out, state, card, colorizer.fingerprints)
    print(f"written: {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")
    return 0


def change(colorizer: Colorizer, weights: str, shift: float | None, temperature: float | None) -> None:
    """Shift a classifier's logits, set its temperature, and record both in its card.

    weights: where the colorizer was loaded from. shift and temperature: None to keep them.
    Raises UserError if the colorizer is not a classifier, or is to be shifted and was trained with rebalancing.
    """
    if shift is None and not temperature:
        return
    from classification import ClassificationColorizer

    if not isinstance(colorizer, ClassificationColorizer):
        raise UserError(f"--shift and --temperature require a classifier, and {weights} is not one: leave them out")
    if shift is not None:
        if shift and colorizer.uniform_share < 1:
            raise UserError(
                f"--shift is given and {weights} was trained with rebalancing: take one trained with"
                " --model.rebalancing_lambda 1"
            )
        colorizer.hooks.start_from(colorizer.card)  # removes the shift from the bias of older weights
        colorizer.card.pop("shifted", None)
        colorizer.shift = shift
        colorizer.card["model"] |= {"shift": shift}
    if temperature:
        colorizer.card["model"] |= {"temperature": temperature}


def measured(
    colorizer: Colorizer, state: dict[str, Tensor], data: str, cache: str | None, temperature: float | None
) -> dict:
    """The entries of the card with the scores of `state`, the weights as they are written, on a source."""
    from common.data.packing import open_pack
    from common.data.sources import list_photos
    from common.evaluation.evaluate import evaluate, model_predictor
    from common.evaluation.metrics import training_metrics
    from common.utils.progress import Progress

    colorizer.load_state_dict(state, strict=False)
    if temperature:
        colorizer.temperature = temperature
    listing, progress = list_photos(data, cache), Progress()
    with progress.task(f"packing {data}") as report:
        pack = open_pack(listing, colorizer.card["size"], listing.measured_split, cache=cache, progress=report)
    result = evaluate({"model": model_predictor(colorizer)}, pack, training_metrics(), intervals=False)
    scores = {name: value["mean"] for name, value in result.table["model"].items()}
    return {"validation": scores, "measured_on": f"{len(pack)} photographs of {Path(data).name}"}


def portable(card: dict) -> dict:
    """The card without paths: sources are reduced to the names of their files."""

    def names(source: str | None) -> str | None:
        return source and ",".join(Path(part).name for part in source.split(","))

    data = card["config"]["data"]
    data = data | {"train": names(data["train"]), "val": names(data["val"]), "cache": None}
    model = card["model"] | ({"prior": names(card["model"]["prior"])} if "prior" in card["model"] else {})
    if "members" in model:  # of an ensemble: their cards
        model |= {"members": [portable(member) for member in model["members"]]}
    trained_on = card["trained_on"] | {"source": names(card["trained_on"]["source"])}
    run = Path(card["config"]["run"]).name
    config = card["config"] | {"data": data, "model": model, "run": run, "init": names(card["config"].get("init"))}
    return card | {"model": model, "trained_on": trained_on, "config": config} | _portable_base(card)


def _portable_base(card: dict) -> dict:
    if "base" not in card:
        return {}
    base = card["base"]
    source = ",".join(Path(part).name for part in base["trained_on"]["source"].split(","))
    return {"base": base | {"trained_on": base["trained_on"] | {"source": source}} | _portable_base(base)}


if __name__ == "__main__":
    sys.exit(main())
