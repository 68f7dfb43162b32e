import pytest

pytest.importorskip("av")

from common.color.lab import rgb8_to_L
from common.film import colorize as film_colorize
from common.film.colorize import FilmJob, colorize_film
from common.film.config import FilmConfig
from common.registry import load_colorizer
from tests.conftest import save_painter


@pytest.fixture(scope="session")
def painter(tmp_path_factory):
    """A small untrained classifier that paints something."""
    return load_colorizer(save_painter(tmp_path_factory.mktemp("weights") / "w.safetensors", name="painter"), "cpu")


@pytest.fixture
def colorize(painter):
    """Colorize a film with the painter: (source, target, fields of FilmJob) -> FilmResult.

    Without `steady`, the color of a frame is known as soon as the frame is read.
    """

    def run(source, target, steady=False, **fields):
        return colorize_film(painter, FilmJob(source, target, FilmConfig(32, steady=steady), **fields))

    return run


@pytest.fixture
def short_segments(monkeypatch):
    """Segments of four frames."""
    monkeypatch.setattr(film_colorize, "SEGMENT_FRAMES", 4)


@pytest.fixture
def lightness():
    """L of a frame uint8 [H, W, 3]."""
    import torch

    return lambda rgb: rgb8_to_L(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0, 0].numpy()
