"""Several plausible colorizations of one photograph, drawn from the distribution that a classifier predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from common.colorizer import Colorizer
from common.predictor import PredictorConfig, embed_photograph, network_input
from common.utils.errors import UserError

MAX_VARIANTS = 8
# chosen on photographs of the training shards, see experiments/README.md
_STRENGTH = 0.3  # of the tilt
_SCALE = 25.0  # ab units by which a color differs from another by one unit of the tilt
_COMMON = 0.5  # part of the tilt that all objects share


def check_variants(colorizer: Colorizer, count: int, model: str) -> None:
    """Raise UserError if the count is out of range or the model predicts no distribution."""
    if not 1 <= count <= MAX_VARIANTS:
        raise UserError(f"the number of variants is {count}: expected 1 to {MAX_VARIANTS}")
    if count > 1 and not hasattr(colorizer, "distribution"):
        raise UserError(f"variants require a classifier, and {model} is not one: use another model")


@torch.no_grad()
def predict_variants(
    colorizer: Colorizer, working: Tensor, config: PredictorConfig, count: int, seed: int = 0
) -> list[Tensor]:
    """Predict colorizations other than the usual one.

    The logits of all bins are tilted: s * (g . ab_bin) is added, with a random direction g of the ab plane at each
    place. g is a linear function of the network's features, so that an object keeps one color and similar objects have
    the same. A tilt changes little where the distribution has one narrow peak, as for grass and skin, and chooses
    another peak where it has several, as for clothes.

    Args:
        colorizer: a classifier, with `distribution` and `temperature`.
        working: L [1, 1, h, w] in 0..100, from `common.predictor.working_lightness`.
        config: size that the network sees, which is rounded up to a multiple that it takes.
        count: number of variants.
        seed: of the tilts. The same seed gives the same variants.

    Returns:
        ab [1, 2, s, t] of each variant, at the size of the distribution, on the device of `working`.
    """
    size = -(-config.size // colorizer.multiple) * colorizer.multiple
    probabilities, ab_bins = colorizer.distribution(network_input(working.to(colorizer.device), size))
    log_p = probabilities[0].float().clamp(min=1e-12).log().cpu()  # [Q, s, t]
    bins = ab_bins.float().cpu()
    features = embed_photograph(colorizer, working, config)
    features = probabilities.sqrt() if features is None else features
    tilts = random_tilts(features[0].float().cpu(), count, seed)
    return [_decode(log_p + _tilt(tilt, bins), bins, colorizer.temperature)[None].to(working.device) for tilt in tilts]


def random_tilts(features: Tensor, count: int, seed: int) -> Tensor:
    """Random vectors in the ab plane that are a linear function of features [C, h, w]: [count, 2, h, w]."""
    generator = torch.Generator().manual_seed(seed)
    centered = features - features.mean(dim=(1, 2), keepdim=True)
    centered = centered / centered.square().sum(dim=0).mean().sqrt().clamp(min=1e-6)
    maps = torch.randn(count, 2, len(features), generator=generator)
    shared = _COMMON * torch.randn(count, 2, 1, 1, generator=generator)
    return torch.einsum("nkc,chw->nkhw", maps, centered) + shared


def _tilt(directions: Tensor, bins: Tensor) -> Tensor:
    """What is added to the logits: directions [2, h, w] and bins [Q, 2] -> [Q, h, w]."""
    return _STRENGTH / _SCALE * torch.einsum("khw,qk->qhw", directions, bins)


def _decode(log_p: Tensor, bins: Tensor, temperature: float) -> Tensor:
    """Annealed mean of unnormalized log probabilities [Q, h, w]: ab [2, h, w]."""
    return torch.einsum("qhw,qk->khw", (log_p / temperature).softmax(dim=0), bins)
