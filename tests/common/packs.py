"""Small packs in memory, for tests of networks that are trained."""

import hashlib

import numpy as np
import torch
from PIL import Image

from common.color.gamut import fit_gamut
from common.data.fingerprints import fingerprints
from common.data.packing import Pack


def pack_of(images, names=None, source="made"):
    """A pack of uint8 [N, S, S, 3]."""
    images = np.stack(images)
    names = names or [f"photo{i}.png" for i in range(len(images))]
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:24] for image in images]
    grey = np.array([np.ptp(image.astype(int), axis=2).max() < 4 for image in images])
    content = hashlib.sha256(images.tobytes()).hexdigest()[:16]
    return Pack(images, names, grey, digests, fingerprints(images), {"source": source, "content": content})


def painted(seed, size=32):
    """A smooth picture whose dark parts are blue and whose bright parts are orange, uint8 [S, S, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4), dtype=np.uint8)
    light = np.array(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)).astype(float)[..., None]
    low, high = np.array([20, 40, 120.0]), np.array([250, 190, 110.0])
    return (low + (high - low) * light / 255).round().astype(np.uint8)


def flat(color, seed, size=32):
    """A noisy picture of one color, uint8 [S, S, 3]."""
    noise = np.random.default_rng(seed).integers(-20, 20, (size, size, 1))
    return np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)


def in_gamut(lab):
    """lab float [H, W, 3], with the chroma of colors outside sRGB reduced."""
    tensor = torch.from_numpy(lab).permute(2, 0, 1)[None]
    out = lab.copy()
    out[..., 1:] = fit_gamut(tensor[:, :1], tensor[:, 1:])[0].permute(1, 2, 0).numpy()
    return out
