"""The server of the page in its own process, and Chromium to visit it."""

import os
import shutil

import numpy as np
import pytest
import torch

from common.checkpoint import save_weights
from common.registry import build_colorizer
from tests.conftest import photo_array


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two untrained classifiers with distributions that are not uniform."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        model = {"network": "small", "width": 0.25}
        colorizer = build_colorizer("classification", **model)
        with torch.no_grad():
            colorizer.network[-1].weight.mul_(300)
        card = {"family": "classification", "model": model, "size": 32, "name": name}
        save_weights(folder / f"{name}.safetensors", colorizer.state_dict(), card)
    return [str(folder / f"{name}.safetensors") for name in ("first", "second")]


@pytest.fixture(scope="module")
def server(weights):
    from tests.common.photo.web.visits import ended, started  # needs the web extra, as the tests that ask for it do

    process, url = started(["--model", *weights, "--max-upload=1", "--max-megapixels=2"])
    yield url
    messages = ended(process)
    assert messages == ""  # no request of these tests raised an unexpected exception
    assert process.returncode == 0


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip("no Chromium on this machine: install it (apt-get install chromium) to drive the page")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Open the page on a device, and check at the end that no script failed and no other site was contacted."""
    failures, contexts = [], []

    def visit(device, **more):
        context = browser.new_context(**device, **more)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: r.url.startswith((server, "blob:")) or failures.append(r.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(server)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not failures


@pytest.fixture
def old(tmp_path):
    """A grey photograph of 240 x 180 pixels."""
    from tests.common.photo.web.visits import encoded

    path = tmp_path / "old.png"
    path.write_bytes(encoded(photo_array(11, 180, 240).mean(axis=2).astype(np.uint8)))
    return path
