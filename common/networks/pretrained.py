"""Published weights of other libraries: from their caches, or fetched, or one sentence within seconds."""

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

_Made = TypeVar("_Made")


def fetched(what: str, library: str, create: Callable[[], _Made], instead: str) -> _Made:
    """What `create` makes with published weights of timm or torchvision.

    Raises UserError, within seconds also without a network, which names the weights, where to put them by hand, and
    `instead`: what else the user can do.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        with _failing_fast() if library == "timm" else nullcontext():
            return create()
    except Exception as error:  # hub and network stacks raise nearly every type
        raise UserError(
            f"{what} cannot be had through {library} ({one_sentence(error)}): check the network, or put them into"
            f" {hub_cache() if library == 'timm' else checkpoints()}, or {instead}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def check_timm_name(option: str, name: str) -> None:
    """See that timm knows a network. Raises UserError with near names where it does not."""
    import timm

    if name.split(".", 1)[0] not in (known := timm.list_models()):
        raise UserError(f"{option} is {name}, which timm does not know{near(name, known)}: see timm.list_models()")


@contextmanager
def _failing_fast() -> Iterator[None]:
    """Without a network the hub's client retries for most of a minute; told so, it looks into its cache at once."""
    from huggingface_hub import constants

    before, server = constants.HF_HUB_OFFLINE, urlparse(constants.ENDPOINT)
    try:
        if not getproxies():  # through a proxy there is no way to try but the client's own
            socket.create_connection((server.hostname, server.port or 443), timeout=3).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def checkpoints() -> Path:
    """Where torch.hub keeps downloaded weights: $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def hub_cache() -> str:
    """Where Hugging Face's client keeps downloaded weights."""
    return os.environ.get("HF_HOME", "~/.cache/huggingface")
