"""`semantics`: top-1 accuracy of a classifier on colorized photographs.

It is to be compared with the accuracy on grey photographs and on originals (Zhang, Isola and Efros 2016, section 3.1,
used VGG). The classifier is a small network trained on the color photographs of a source with class folders, without
grey augmentation. Grey photographs are therefore out of its training distribution, and the difference between the rows
`grey` and `original` does not measure the value of color alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from common.data.augment import AugmentConfig
from common.data.packing import Pack
from common.data.sources import cache_dir
from common.evaluation.evaluate import Predict
from common.evaluation.learned.small_classifier import (
    SIDE,
    Recipe,
    Report,
    SmallResNet,
    augmented,
    build_network,
    fit,
    logits_of,
)
from common.evaluation.sheets import render
from common.networks.pretrained import check_timm_name, local_network
from common.utils.errors import UserError
from common.utils.files import locked, write_atomically

RECIPE = Recipe(width=24, blocks=(1, 1, 1, 1), steps=1200, lr=6e-3, smoothing=0.1)
_AUGMENT = AugmentConfig(crop="resized", min_scale=0.6)
_VERSION = 2  # of the training code; cached networks of other versions are not used

Recognizer = Callable[[np.ndarray], np.ndarray]  # pictures uint8 [n, S, S, 3] -> predicted class names, str [n]


def class_of(name: str) -> str | None:
    """The class of a photograph: the innermost folder in its name, or None if it is in no folder."""
    folders = name.split("/")[:-1]
    return folders[-1] if folders else None


def semantics_values(
    predict: Predict,
    pack: Pack,
    recognize: Recognizer,
    classes: list[str],
    *,
    indices: np.ndarray | None = None,
    side: int | None = SIDE,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Whether each photograph is classified correctly in the predicted colors.

    recognize, classes: from `trained_recognizer` or `timm_recognizer`. indices: of the measured photographs in the
    pack, int [n] (default: all). side: larger pictures are reduced to it (None: never). Returns float64 [n]: 1
    if the predicted class is the photograph's class folder, else 0; NaN if this folder is not among the classes.
    Raises UserError if no photograph is in a folder of these classes.
    """
    device = torch.device(device)
    indices = np.arange(len(pack)) if indices is None else np.asarray(indices)
    known = known_positions(pack, indices, classes)
    truth = np.array([class_of(pack.names[i]) for i in indices[known]])
    values = np.full(len(indices), np.nan)
    pictures = render(predict, pack, indices[known], side=side, batch_size=batch_size, device=device)
    values[known] = recognize(pictures) == truth
    return values


def known_positions(pack: Pack, indices: np.ndarray, classes: list[str]) -> np.ndarray:
    """Positions among `indices` of the photographs in folders of these classes. Raises UserError if there are none."""
    folders, known_classes = [class_of(pack.names[i]) for i in indices], set(classes)
    known = np.flatnonzero([folder in known_classes for folder in folders])
    if not len(known):
        raise UserError(
            f"semantics needs photographs in class folders that its network knows ({_some(classes)}), and those of"
            f" {pack.manifest['source']} are {_some(sorted({f for f in folders if f})) or 'none'}: measure another"
            " source, or leave the metric out"
        )
    return known


def describe(classes: int, recipe: Recipe = RECIPE) -> str:
    """The metric and its network in words, for the protocol."""
    return (
        f"top-1 of {classes} classes, to be read between the rows grey and original; residual network of"
        f" {sum(recipe.blocks)} blocks, width {recipe.width}, on Lab at {SIDE} px at most, {recipe.steps} steps of"
        f" {recipe.batch_size} pictures, no grey augmentation"
    )


def trained_recognizer(
    source: Pack,
    measured: Pack,
    *,
    size: int,
    recipe: Recipe = RECIPE,
    device: str | torch.device = "cpu",
    seed: int = 0,
    cache: str | None = None,
    progress: Report | None = None,
) -> tuple[Recognizer, list[str]]:
    """Train a network on the class folders of a pack, or load it from the cache: (recognizer, its classes).

    Grey photographs, and those that are also in the measured pack, are not used. size: side of the crops, at most the
    pack's. Raises UserError if there are fewer than two class folders, or if the cache folder cannot be used.
    """
    device = torch.device(device)
    indices = source.excluding(measured).color_indices
    names = [class_of(source.names[i]) for i in indices]
    classes = sorted({name for name in names if name})
    if len(classes) < 2 or None in names:
        have = f"only '{classes[0]}'" if len(classes) == 1 else f"{names.count(None)} photographs outside of folders"
        raise UserError(
            f"{source.manifest['source']} has no class folders to learn from ({have if names else 'nothing new'}):"
            " name a source with --semantics_from that has one folder per class"
        )
    labels = np.searchsorted(classes, names)
    key = json.dumps([_VERSION, size, source.size, seed, asdict(recipe), asdict(_AUGMENT), classes])
    digest = hashlib.sha256(key.encode() + source.manifest["content"].encode() + indices.tobytes() + labels.tobytes())
    path = cache_dir(cache) / "classifiers" / f"semantics-{size}-{digest.hexdigest()[:16]}.safetensors"
    network = build_network(len(classes), recipe, seed, device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                _train(network, source, indices, labels, size, recipe, device, seed, progress)
                state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
                write_atomically(path, lambda to: save_file(state, to, metadata={"classes": json.dumps(classes)}))
    except OSError as error:
        raise UserError(
            f"the classifier cannot be cached in {path.parent} ({error.strerror}): choose another --cache"
        ) from None
    try:
        with safe_open(path, framework="pt") as file:
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, RuntimeError, OSError):
        raise UserError(f"the classifier {path} is damaged: delete it and run again") from None
    return lambda pictures: np.array(classes)[logits_of(network, pictures, device).argmax(1).numpy()], classes


def _train(
    network: SmallResNet, source: Pack, indices: np.ndarray, labels: np.ndarray, size: int, recipe: Recipe,
    device: torch.device, seed: int, progress: Report | None,
) -> None:  # fmt: skip
    def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        draws = np.random.default_rng((seed, step))
        chosen = draws.integers(0, len(indices), recipe.batch_size)
        noise = draws.random((recipe.batch_size, 8), dtype=np.float32)
        pictures = augmented(source.images[indices[chosen]], noise, size, _AUGMENT, device)
        return pictures, torch.from_numpy(labels[chosen]).to(device)

    fit(network, batch_of, recipe, device, report=progress)


def timm_recognizer(given: str, device: str | torch.device = "cpu") -> tuple[Recognizer, list[str]]:
    """Load a timm network that classifies ImageNet: (recognizer, its classes by the names of ImageNet's folders).

    given: a name of timm's whose weights are on this disk, or NAME=FILE. Pictures are resized to the network's own
    input. Nothing is downloaded. Raises UserError for an unknown name, missing weights, or classes of another data set.
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config

    name, _, file = given.partition("=")
    check_timm_name("--semantics_network", name)
    if file and not Path(file).is_file():
        raise UserError(f"--semantics_network {given}: the weights {file} do not exist: give a file")
    network = local_network(name, Path(file) if file else None)
    subset = infer_imagenet_subset(network)
    if subset is None:
        raise UserError(f"{name} has {network.num_classes} classes that are not ImageNet's: name another network")
    classes = ImageNetInfo(subset).label_names()
    config = resolve_model_data_config(network)
    network = network.eval().to(torch.device(device))

    @torch.no_grad()
    def recognize(pictures: np.ndarray) -> np.ndarray:
        guesses = []
        mean, std = (torch.tensor(config[k], device=device).view(1, 3, 1, 1) for k in ("mean", "std"))
        for start in range(0, len(pictures), 32):
            rgb = torch.from_numpy(pictures[start : start + 32]).to(device).permute(0, 3, 1, 2).float() / 255
            rgb = torch.nn.functional.interpolate(
                rgb, size=config["input_size"][1:], mode="bicubic", antialias=True, align_corners=False
            )
            guesses.append(network((rgb.clamp(0, 1) - mean) / std).argmax(1).cpu().numpy())
        return np.array(classes)[np.concatenate(guesses)]

    return recognize, classes


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
