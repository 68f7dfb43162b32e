"""Pretrained weights of timm and torchvision, from their caches or downloaded."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse
from urllib.request import getproxies

import torch

from common.utils.errors import UserError, near, one_sentence

T = TypeVar("T")


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


def check_timm_name(option: str, name: str) -> None:
    """Raise UserError, with a similar name, if timm has no network `name`. option: what it was given for."""
    import timm

    if name.split(".", 1)[0] not in (known := timm.list_models()):
        raise UserError(f"{option} is {name}, which timm does not know{near(name, known)}: see timm.list_models()")


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
    """The path of downloaded weights of torchvision. It does not access the network.

    file: name in `checkpoints()`. of: the network, for the message. otherwise: further text at the end of the message.
    Raises UserError if the file is missing.
    """
    path = checkpoints() / file
    if not path.exists():
        raise UserError(f"the weights of {of} are not on this machine: put {file} into {path.parent}{otherwise}")
    return path


def cached_timm_weights(name: str) -> Path | None:
    """The path of downloaded weights of a timm network, or None. It does not access the network."""
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


def hub_cache() -> str:
    """The folder to which the client of Hugging Face downloads weights."""
    return os.environ.get("HF_HOME", "~/.cache/huggingface")
