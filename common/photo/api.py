"""Colorize images in memory: PIL images, NumPy arrays, tensors, and lists and batches of them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.colorizer import Colorizer
from common.imaging.read import to_srgb
from common.photo.edit import Edit
from common.predictor import PredictorConfig, colorize_photo
from common.utils.errors import UserError

ImageLike = Image.Image | np.ndarray | Tensor | list


def colorize(colorizer: Colorizer, image: ImageLike, *, size: int | None = None, edit: Edit | None = None) -> ImageLike:
    """Colorize one image or several. Only their lightness is used, and it is preserved.

    Args:
        colorizer: a loaded model.
        image: a PIL image; a uint8 or uint16 array [H, W], [H, W, 1 or 3] or [N, H, W, 1 or 3]; a float tensor in
            0..1, [1 or 3, H, W] or [N, 1 or 3, H, W]; or a list of these.
        size: side of the square that the network sees, in pixels. Default: the size in `colorizer.card`.
        edit: changes to the predicted color.

    Returns:
        The same type, dtype and device, with three channels. A PIL image keeps its alpha channel, and becomes sRGB with
        8 bits.

    Raises:
        UserError: `image` has another type, dtype, shape or range, or there is no size.
    """
    size = (colorizer.card or {}).get("size") if size is None else size
    if size is None:
        raise UserError("size is not given, and this colorizer has no card with its size: pass size=64, for example")
    if not 16 <= size <= 2048:
        raise UserError(f"size is {size}: expected 16 to 2048 pixels")
    config = PredictorConfig(size)
    if isinstance(image, list):
        return [colorize(colorizer, item, size=size, edit=edit) for item in image]
    if isinstance(image, Image.Image):
        rgb, alpha, _ = to_srgb(image, "the picture")
        colored = Image.fromarray(colorize_photo(colorizer, rgb, config, edit))
        if alpha is not None:
            colored.putalpha(Image.fromarray(alpha))
        return colored
    if isinstance(image, Tensor):
        return _colorize_tensor(colorizer, image, config, edit)
    if isinstance(image, np.ndarray) and image.dtype in (np.uint8, np.uint16):
        if image.ndim == 4 and image.shape[3] in (1, 3):
            return np.stack([colorize_photo(colorizer, _three_channels(item), config, edit) for item in image])
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3)):
            return colorize_photo(colorizer, _three_channels(image), config, edit)
    what = f"{image.dtype} of shape {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(f"colorize got {what}: expected PIL pictures, uint8 or uint16 [H, W, 3] arrays, or float tensors")


def _three_channels(image: np.ndarray) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _colorize_tensor(colorizer: Colorizer, image: Tensor, config: PredictorConfig, edit: Edit | None) -> Tensor:
    shape, batch = list(image.shape), image[None] if image.ndim == 3 else image
    if not image.is_floating_point() or batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise UserError(f"colorize got a tensor {image.dtype} of shape {shape}: expected floats [N, 1 or 3, H, W]")
    low, high = (float(x) for x in torch.aminmax(image))
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise UserError(f"colorize got a tensor with values {low:.3g} to {high:.3g}: expected 0 to 1")
    colored = []
    for item in batch.expand(-1, 3, -1, -1):
        # 16 bits are finer than any visible difference
        rgb = (item.clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy().astype(np.uint16)
        rgb = colorize_photo(colorizer, rgb, config, edit).astype(np.float32) / 65535
        colored.append(torch.from_numpy(rgb).permute(2, 0, 1))
    out = torch.stack(colored).to(device=image.device, dtype=image.dtype)
    return out[0] if image.ndim == 3 else out
