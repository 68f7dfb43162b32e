"""Whole sessions in a real Chromium: practice, test, a reload in the middle, the end; with keys and with touch.

TURING_FULL=1 plays all 10 + 40 pairs; TURING_DATA and TURING_MODEL put other photographs (at 160 px) and a trained
model in; TURING_LOOKS names a folder for screenshots.
"""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.turing.pictures import DISPLAY_SIZE
from common.turing.static_site import export_static_site, merge_answers
from common.turing.store import open_store
from tests.common.turing.conftest import COUNTS, TOKEN, serving
from tests.common.turing.playing import DESKTOP, PHONE, WATCH, check_shows, play, until_asked


class Quiet(SimpleHTTPRequestHandler):
    """Any web host of static files."""

    def log_message(self, *args):
        pass


LOOKS = os.environ.get("TURING_LOOKS")  # a folder for screenshots


def counts():
    """2 + 5 pairs, or all."""
    if os.environ.get("TURING_FULL"):
        return {"practice": 10, "test": 40, "vigilance": 0.1}
    return COUNTS


@pytest.fixture(scope="module")
def server(weights, color_folder, tmp_path_factory, chromium_path):
    db = tmp_path_factory.mktemp("played") / "study.db"
    data = os.environ.get("TURING_DATA", str(color_folder))
    size = {"size": 160} if "TURING_DATA" in os.environ else {}
    model = os.environ.get("TURING_MODEL", weights)
    with serving(model, data, db, **counts(), **size) as served:
        yield served, db


def open_page(browser, device, url, requests, **more):
    context = browser.new_context(**device, **more)
    context.set_default_timeout(120_000)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(f"the page failed: {error}"))
    page.on("console", lambda said: said.type == "error" and requests.append(f"console: {said.text}"))
    page.goto(url)
    return page


def photograph(page, name):
    if LOOKS:
        page.screenshot(path=Path(LOOKS) / f"{name}.png")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "device", "layout"), [("desktop", DESKTOP, "row"), ("phone", PHONE, "column")])
def test_a_whole_session(server, browser, name, device, layout):
    served, db = server
    touch, requests = bool(device.get("has_touch")), []
    page = open_page(browser, device, served.url, requests)
    photograph(page, f"{name}-welcome")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url("**/test")

    def look(what, answered):
        if answered in (0, 1, sum(map(int, (counts()["practice"],)))):
            photograph(page, f"{name}-{what}-{answered}")

    half = counts()["practice"] + counts()["test"] // 2
    play(page, half, touch=touch, look=look)
    shows = page.evaluate("window.seen")
    until_asked(page)  # a pair was displayed, and the page asks about it
    page.reload()
    until_asked(page)
    assert page.locator("#next").inner_text() == "Continue"
    photograph(page, f"{name}-back")
    play(page, counts()["test"] - counts()["test"] // 2 - 1, touch=touch)
    page.wait_for_url("**/result")
    assert "You were fooled in" in page.locator(".big").inner_text()
    photograph(page, f"{name}-result")
    page.goto(served.url + "/test")  # there is nothing left to play
    page.wait_for_url("**/result")

    check_shows([show for show in shows if show["end"]], layout)
    assert not [r for r in requests if not r.startswith((served.url, "blob:"))], (
        "a request to another site, or an error"
    )
    pairs = [r.rsplit("/", 1)[1] for r in requests if "/pair/" in r]
    store = open_store(db)
    latest = max(r.session for r in store.records())
    records = [r for r in store.records() if r.session == latest]
    store.close()
    assert len(records) == counts()["practice"] + counts()["test"]
    lapsed = [r.position for r in records if r.choice is None]
    assert lapsed == [half]  # the pair that was displayed at the reload is not displayed again
    assert all(r.shown for r in records)
    # the pair that had been fetched ahead at the reload is fetched once more; nothing else is
    assert len(set(pairs)) == len(records) <= len(pairs) <= len(records) + 1
    exposures = [r.exposure_ms for r in records if r.choice]
    print(f"{name}: exposures {min(exposures):.1f} to {max(exposures):.1f} ms")
    assert all(abs(e - 1000) <= 50 for e in exposures), exposures
    assert all(r.layout == layout and r.response_ms >= 0 for r in records if r.choice)
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "layout", "side"),
    [(320, 568, "column", 256), (360, 640, "column", 256), (390, 664, "column", 256), (844, 390, "row", 256),
     (568, 320, "row", 256), (320, 450, "small", 190)],
)  # fmt: skip
def test_small_screens(server, browser, width, height, layout, side):
    """Both places are wholly on the screen, as large as it allows, and the button can be reached."""
    served, _ = server
    page = open_page(browser, PHONE | {"viewport": {"width": width, "height": height}}, served.url, [])
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Begin").click()
    page.locator("#next:not([hidden])").wait_for()
    button = page.locator("#next").bounding_box()
    assert button["y"] + button["height"] <= height + 1  # scrolling is by whole pixels
    page.evaluate("scrollTo(0, 0)")
    boxes = [page.locator(name).bounding_box() for name in ("#left", "#right")]
    for box in boxes:
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        assert side <= box["width"] <= DISPLAY_SIZE
        assert box["width"] == box["height"]
    assert (boxes[0]["width"] == DISPLAY_SIZE) == (layout != "small")
    assert (boxes[0]["y"] == boxes[1]["y"]) == (layout == "row")
    photograph(page, f"small-{width}x{height}")
    page.context.close()


@pytest.mark.slow
def test_the_report_page(server, browser):
    served, _ = server
    requests = []
    page = open_page(browser, DESKTOP, served.url + "/report", requests)
    assert page.title() == "Report"
    photograph(page, "report-token")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button").click()
    page.get_by_role("heading", name="Study").wait_for()
    assert page.get_by_role("cell", name="unanswered").count() == 1
    photograph(page, "report")
    page.context.close()


@pytest.mark.slow
def test_the_static_site(made, browser, tmp_path):
    """The same session from files: reload in the middle, download, merge."""
    site = tmp_path / "site"
    key = export_static_site(made.inputs.study, made.gallery, site, sessions=4)
    host = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=host.serve_forever, daemon=True).start()
    try:
        requests = []
        page = open_page(browser, PHONE, f"http://127.0.0.1:{host.server_port}/", requests)
        page.get_by_role("button", name="Begin").tap()
        assert page.get_by_role("alert").is_visible()
        page.get_by_role("checkbox").check()
        photograph(page, "static-site-welcome")
        page.get_by_role("button", name="Begin").tap()
        play(page, 3, touch=True)
        until_asked(page)
        page.reload()
        play(page, 3, touch=True)
        page.locator("#end:not([hidden])").wait_for()
        photograph(page, "static-site-end")
        with page.expect_download() as download:
            page.locator("#download").tap()
        download.value.save_as(tmp_path / "answers.json")
        assert not [r for r in requests if not r.startswith(("http://127.0.0.1", "blob:"))]
        page.context.close()
    finally:
        host.shutdown()
        host.server_close()
    assert merge_answers(key, [tmp_path / "answers.json"], tmp_path / "merged.db") == (1, 0, [])
    assert merge_answers(key, [tmp_path / "answers.json"], tmp_path / "merged.db") == (0, 1, [])
    store = open_store(tmp_path / "merged.db")
    records = store.records()
    store.close()
    assert [r.choice is None for r in records] == [False] * 3 + [True] + [False] * 3
    assert all(abs(r.exposure_ms - 1000) <= 50 and r.layout == "column" for r in records if r.choice)
