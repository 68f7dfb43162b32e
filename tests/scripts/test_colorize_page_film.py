"""Films on the page, in a real browser."""

import pytest

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("av", reason="films need the video extra")

from tests.common.film.films import frames_of, make_film
from tests.scripts.test_colorize_page import DESKTOP, drop, look, until_painted


def test_a_film_is_dropped_followed_and_downloaded(visit, old, tmp_path):
    film = make_film(tmp_path / "old.mp4", 40, (72, 96)).read_bytes()
    page = visit(DESKTOP)
    look(page, "empty-films")
    assert "20 seconds and 1920x1080 pixels" in page.locator("#terms").inner_text()
    drop(page, film, "old.mp4", "video/mp4")
    page.wait_for_function("() => document.getElementById('progress').value > 0")
    assert page.locator("#progress").get_attribute("max") == "40"
    look(page, "film-progress")
    page.get_by_role("link", name="Download the film").wait_for()
    assert page.locator("#progress").is_hidden()
    assert page.locator("#clip-status").inner_text() == "old.mp4: 40 frames are colored"
    look(page, "film")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the film").click()
    assert download.value.suggested_filename == "old.color.mp4"
    download.value.save_as(tmp_path / "out.mp4")
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 40
    page.get_by_role("button", name="Remove").click()
    assert page.locator("#clip").is_hidden()

    drop(page, b"no film", "notes.mkv", "")
    page.locator("#error").wait_for()
    assert page.locator("#error").inner_text().startswith("notes.mkv is not a film in a supported format")
    assert page.locator("#clip").is_hidden()
    look(page, "film-refused")
    page.set_input_files("#file", old)  # pictures are still taken
    until_painted(page)
    assert page.locator("#error").is_hidden()
