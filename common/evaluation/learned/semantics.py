"""`semantics`: does color help to recognize what a photograph shows?

Top-1 of a classifier on colorized photographs, to be read between those on grey ones and on originals (Zhang, Isola and
Efros 2016, section 3.1, did it with VGG). Here the classifier is a small network trained on the class folders of a
source, on color photographs and without any grey augmentation: so a grey photograph is also one of a kind it has never
seen, and the gap between the rows `grey` and `original` is not the worth of color alone.
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
    shown,
)
from common.utils.errors import UserError
from common.utils.files import locked, write_atomically

RECIPE = Recipe(width=24, blocks=(1, 1, 1, 1), steps=1200, lr=6e-3, smoothing=0.1)
_AUGMENT = AugmentConfig(crop="resized", min_scale=0.6)
_VERSION = 1  # of the training; a network of another one is trained anew

Recognizer = Callable[[np.ndarray], np.ndarray]  # pictures uint8 [n, S, S, 3] -> a class name of each, [n]


def class_of(name: str) -> str | None:
    """The class of a photograph: the innermost folder in its name, None where it lies in none."""
    folders = name.split("/")[:-1]
    return folders[-1] if folders else None


def semantics_values(
    predictors: dict[str, Predict],
    pack: Pack,
    recognize: Recognizer,
    classes: list[str],
    *,
    rows: np.ndarray | None = None,
    side: int | None = SIDE,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    progress: Report | None = None,
) -> dict[str, np.ndarray]:
    """Whether each photograph, in the colors of each row, is recognized.

    recognize, classes: as `trained_recognizer` or `timm_recognizer` gives them. rows: of the pack, those measured
    (default: all). side: pictures are reduced to it (None: shown as they are). Returns row -> float64 [n]: 1 where the
    first guess is the photograph's class folder, else 0; NaN where that folder is no class of the network. Raises
    UserError where no photograph has a class it knows.
    """
    device = torch.device(device)
    rows = np.arange(len(pack)) if rows is None else np.asarray(rows)
    known = known_rows(pack, rows, classes)
    truth = np.array([class_of(pack.names[i]) for i in rows[known]])
    out: dict[str, np.ndarray] = {}
    for row, predict in predictors.items():
        out[row] = np.full(len(rows), np.nan)
        pictures = shown(predict, pack, rows[known], side=side, batch_size=batch_size, device=device)
        out[row][known] = recognize(pictures) == truth
        if progress:
            progress(len(out), len(predictors))
    return out


def known_rows(pack: Pack, rows: np.ndarray, classes: list[str]) -> np.ndarray:
    """Which of these rows of a pack lie in folders of these classes. Raises UserError where none does."""
    folders, there = [class_of(pack.names[i]) for i in rows], set(classes)
    known = np.flatnonzero([folder in there for folder in folders])
    if not len(known):
        raise UserError(
            f"semantics needs photographs in class folders that its network knows ({_some(classes)}), and those of"
            f" {pack.manifest['source']} are {_some(sorted({f for f in folders if f})) or 'none'}: measure another"
            " source, or leave the metric out"
        )
    return known


def describe(classes: int, recipe: Recipe = RECIPE) -> str:
    """The network, for the protocol card."""
    return (
        f"top-1 of {classes} classes, to be read between the rows grey and original; residual network of"
        f" {sum(recipe.blocks)} blocks, width {recipe.width}, on Lab at {SIDE} px at most, {recipe.steps} steps of"
        f" {recipe.batch_size} pictures, no grey augmentation"
    )


def trained_recognizer(
    teaching: Pack,
    measured: Pack,
    *,
    size: int,
    recipe: Recipe = RECIPE,
    device: str | torch.device = "cpu",
    seed: int = 0,
    cache: str | None = None,
    progress: Report | None = None,
) -> tuple[Recognizer, list[str]]:
    """(recognizer, its classes): a network trained on the class folders of a pack, or the same one from the cache.

    Photographs that are grey, or whose file is in the measured pack too, are not learned from. size: side of the
    crops, at most the pack's. Raises UserError where there are not two class folders or more.
    """
    device = torch.device(device)
    rows = teaching.excluding(measured).color_indices
    names = [class_of(teaching.names[i]) for i in rows]
    classes = sorted({name for name in names if name})
    if len(classes) < 2 or None in names:
        have = f"only '{classes[0]}'" if len(classes) == 1 else f"{names.count(None)} photographs outside of folders"
        raise UserError(
            f"{teaching.manifest['source']} has no class folders to learn from ({have if names else 'nothing new'}):"
            " name a source with --semantics_from whose photographs lie in a folder for each class"
        )
    labels = np.searchsorted(classes, names)
    key = json.dumps([_VERSION, size, teaching.size, seed, asdict(recipe), asdict(_AUGMENT), classes])
    digest = hashlib.sha256(key.encode() + teaching.manifest["content"].encode() + rows.tobytes() + labels.tobytes())
    path = cache_dir(cache) / "classifiers" / f"semantics-{size}-{digest.hexdigest()[:16]}.safetensors"
    network = build_network(len(classes), recipe, seed, device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                _train(network, teaching, rows, labels, size, recipe, device, seed, progress)
                state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
                write_atomically(path, lambda to: save_file(state, to, metadata={"classes": json.dumps(classes)}))
    except OSError as error:
        raise UserError(
            f"the classifier cannot be kept in {path.parent} ({error.strerror}): choose another --cache"
        ) from None
    try:
        with safe_open(path, framework="pt") as file:
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, RuntimeError, OSError):
        raise UserError(f"the classifier {path} is damaged: delete it and run again") from None
    return lambda pictures: np.array(classes)[logits_of(network, pictures, device).argmax(1).numpy()], classes


def _train(
    network: SmallResNet, teaching: Pack, rows: np.ndarray, labels: np.ndarray, size: int, recipe: Recipe,
    device: torch.device, seed: int, progress: Report | None,
) -> None:  # fmt: skip
    def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        draws = np.random.default_rng((seed, step))
        chosen = draws.integers(0, len(rows), recipe.batch_size)
        noise = draws.random((recipe.batch_size, 8), dtype=np.float32)
        pictures = augmented(teaching.images[rows[chosen]], noise, size, _AUGMENT, device)
        return pictures, torch.from_numpy(labels[chosen]).to(device)

    fit(network, batch_of, recipe, device, report=progress)


def timm_recognizer(given: str, device: str | torch.device = "cpu") -> tuple[Recognizer, list[str]]:
    """(recognizer, its classes): a timm network with published weights that are on this disk, by ImageNet's folders.

    given: a name of timm's, or NAME=FILE with its weights. Pictures are enlarged to the size it was trained at. Nothing
    is downloaded. Raises UserError where the name, or its weights, or the names of its classes are not there.
    """
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config

    name, _, file = given.partition("=")
    if not timm.is_model(name):
        close = timm.list_models(f"{name[:6]}*")[:3] if name else []
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise UserError(f"--semantics_network {name} is no network of timm{hint}: timm.list_models() names them all")
    if file and not Path(file).is_file():
        raise UserError(f"--semantics_network {given}: the weights {file} do not exist: give a file")
    from huggingface_hub import constants

    online, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        overlay = {"file": file} if file else None
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's and the pickles' layers raise nearly every type
        raise UserError(
            f"weights of {name} cannot be read from this disk ({type(error).__name__}): download them once with"
            f" timm.create_model('{name}', pretrained=True), or give --semantics_network {name}=FILE"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = online
    subset = infer_imagenet_subset(network)
    if subset is None:
        raise UserError(f"{name} tells {network.num_classes} classes that are not ImageNet's: name another network")
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
