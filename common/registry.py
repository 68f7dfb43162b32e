"""Families by name: registration, and building or loading their colorizers.

A family is a package whose `__init__` calls `register_family`. It is imported when its name is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import Path

import torch

from common.checkpoint import load_published, read_weights, weights_file
from common.colorizer import Colorizer
from common.utils.errors import UserError, near, one_sentence
from common.utils.options import typed_options

Build = Callable[..., Colorizer]
Upgrade = Callable[[dict], dict]
Loader = Callable[[str], Colorizer | None]

ENTRY_POINTS = "colorization_lab.families"  # group of packages' metadata that names families to import
_CHECKOUT = Path(__file__).resolve().parent.parent

_families: dict[str, tuple[Build, Upgrade, Upgrade]] = {}
_loaders: list[Loader] = []
_loading: ContextVar[tuple[str, ...]] = ContextVar("_loading", default=())  # files whose networks are being built


def register_family(
    name: str, build: Build, upgrade: Upgrade = dict, starting_model: Upgrade = lambda card: card["model"]
) -> None:
    """Make a family known under the name that configs and cards use.

    build: typed keyword arguments (the `model` options) -> a colorizer with fresh weights. upgrade: `model` options as
    older cards and configs have them -> those that `build` takes. starting_model: card of published weights -> `model`
    options of a training that starts from them.
    """
    _families[name] = build, upgrade, starting_model


def register_loader(load: Loader) -> None:
    """Let `load_colorizer` read names that are no paths, such as `mean(a,b)`.

    load: returns the colorizer, or None for a name that is not of its form.
    """
    _loaders.append(load)


def families() -> list[str]:
    """Names of all families: registered ones, those of installed packages, and those in the folder of a checkout."""
    return sorted({*_families, *_modules()})


def family_builder(family: str) -> Build:
    """The `build` function of a family. Raises UserError for an unknown name."""
    if family not in _families:
        modules = _modules()
        if family not in modules:
            raise UserError(f"family is '{family}': expected one of {', '.join(families())}{near(family, families())}")
        importlib.import_module(modules[family])
    return _families[family][0]


def upgraded(family: str, model: dict) -> dict:
    """`model` options of an older card or config as the family's `build` takes them."""
    family_builder(family)
    return _families[family][1](model)


def starting_model(card: dict) -> dict:
    """`model` options of a training that starts from the published weights with this card."""
    family_builder(card["family"])
    return upgraded(card["family"], _families[card["family"]][2](card))


def build_colorizer(family: str, **model: object) -> Colorizer:
    """Build a family's colorizer with fresh weights. Raises UserError for an unknown family or option."""
    build = family_builder(family)
    return build(**typed_options(build, upgraded(family, model)))


def load_colorizer(path: str | Path, device: str | torch.device = "cpu") -> Colorizer:
    """Read published weights.

    path: a .safetensors file, a run folder that holds one, the name of an installed model, or the mean of several as in
    `mean(a,b)`. Returns the colorizer in eval mode on the device, with its `card` (see
    `common.checkpoint.save_weights`). Raises UserError where the file cannot be read or was not written by this
    project.
    """
    for module in _modules().values() if "(" in str(path) else ():
        importlib.import_module(module)
    for load in _loaders:
        if (colorizer := load(str(path))) is not None:
            return colorizer.eval().to(device=device, memory_format=torch.channels_last)
    state, card, fingerprints = read_weights(path)
    colorizer = _of_card(card, path)
    own = colorizer.state_dict()
    if wrong := load_published(colorizer, state):
        raise UserError(
            f"the weights {path} do not fit the {card['family']} network that their card names"
            f" ({len(wrong)} tensors, such as {wrong[0]}): they were written by another version"
        )
    for key, value in state.items():
        if value.is_floating_point() != own[key].is_floating_point():
            raise UserError(f"the weights {path} hold {key} as {value.dtype}, not {own[key].dtype}: publish them again")
        if own[key].is_floating_point() and not own[key].isfinite().all():  # own shares memory with the colorizer
            raise UserError(f"the weights {path} hold NaN or infinity in {key}: the training diverged, take others")
    colorizer.card, colorizer.fingerprints = card, fingerprints
    return colorizer.eval().to(device=device, memory_format=torch.channels_last)


def _of_card(card: dict, path: str | Path) -> Colorizer:
    """The network that a card names, with fresh weights. Raises UserError where the card does not describe one."""
    file = str(weights_file(path).resolve())
    if file in _loading.get():
        raise UserError(f"the weights {path} are a member of their own ensemble: train it from other weights")
    token = _loading.set((*_loading.get(), file))
    try:
        return build_colorizer(card["family"], **without_downloads(card["model"]))
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # values of other types than a family expects raise nearly every type
        raise UserError(
            f"the card of {path} describes no network of {card['family']} ({one_sentence(error)}): it was not"
            " written by this project"
        ) from None
    finally:
        _loading.reset(token)


def without_downloads(model: dict) -> dict:
    """Model options with every `pretrained` set to false, for weights that are about to be replaced by saved ones."""
    return {
        key: False if key == "pretrained" else without_downloads(value) if isinstance(value, dict) else value
        for key, value in model.items()
    }


def _modules() -> dict[str, str]:
    """Family name -> module to import, without importing any."""
    modules = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    if (_CHECKOUT / "experiments").is_dir():  # a checkout, not site-packages
        for init in [*_CHECKOUT.glob("*/__init__.py"), *_CHECKOUT.glob("common/*/__init__.py")]:
            if "register_family(" in init.read_text():
                module = ".".join(init.parent.relative_to(_CHECKOUT).parts)
                modules.setdefault(init.parent.name, module)
    return modules
