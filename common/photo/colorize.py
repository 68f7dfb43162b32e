"""Colorize what a Python program holds: PIL pictures, numpy arrays, tensors, and lists and batches of them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.colorizer import Colorizer
from common.photo.edit import Edit
from common.predictor import colorize_photo
from common.utils.errors import UserError

Colorizable = Image.Image | np.ndarray | Tensor | list


def colorize(
    colorizer: Colorizer, image: Colorizable, *, size: int | None = None, edit: Edit | None = None
) -> Colorizable:
    """Colorize photographs; only their lightness is used.

    image: a PIL picture -> one in mode RGB (RGBA keeps its alpha); numpy uint8 or uint16 [H, W], [H, W, 1 or 3], or a
    batch [N, H, W, 1 or 3] -> the same with 3 channels; a float tensor in 0..1 [1 or 3, H, W] or [N, 1 or 3, H, W] ->
    the same with 3 channels, on its own device; a list of these -> a list. size: side of the square that the network
    sees (default: as it was trained). edit: what to change of the predicted color. Raises UserError for anything else.
    """
    size = size or (colorizer.card or {}).get("size")
    if not size:
        raise UserError("size is not given, and this colorizer has no card that says it: give size=64 or another")
    if isinstance(image, list):
        return [colorize(colorizer, one, size=size, edit=edit) for one in image]
    if isinstance(image, Image.Image):
        colored = Image.fromarray(colorize_photo(colorizer, np.asarray(image.convert("RGB")), size, edit))
        if image.has_transparency_data:
            colored.putalpha(image.convert("RGBA").getchannel("A"))
        return colored
    if isinstance(image, Tensor):
        return _colorize_tensor(colorizer, image, size, edit)
    if isinstance(image, np.ndarray) and image.dtype in (np.uint8, np.uint16):
        if image.ndim == 4 and image.shape[3] in (1, 3):
            return np.stack([colorize_photo(colorizer, _three(one), size, edit) for one in image])
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3)):
            return colorize_photo(colorizer, _three(image), size, edit)
    what = f"{image.dtype} of shape {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(f"colorize got {what}: it takes PIL pictures, uint8 or uint16 [H, W, 3] arrays, or float tensors")


def _three(image: np.ndarray) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _colorize_tensor(colorizer: Colorizer, image: Tensor, size: int, edit: Edit | None) -> Tensor:
    shape, batch = list(image.shape), image[None] if image.ndim == 3 else image
    if not image.is_floating_point() or batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise UserError(f"colorize got a tensor {image.dtype} of shape {shape}: it takes floats [N, 1 or 3, H, W]")
    low, high = (float(x) for x in torch.aminmax(image))
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise UserError(f"colorize got a tensor with values {low:.3g} to {high:.3g}: it takes 0 to 1")
    found = []
    for one in batch.expand(-1, 3, -1, -1):  # 16 bits hold more than a network knows
        deep = (one.clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy().astype(np.uint16)
        colored = torch.from_numpy(colorize_photo(colorizer, deep, size, edit).astype(np.float32) / 65535)
        found.append(colored.permute(2, 0, 1))
    out = torch.stack(found).to(device=image.device, dtype=image.dtype)
    return out[0] if image.ndim == 3 else out
