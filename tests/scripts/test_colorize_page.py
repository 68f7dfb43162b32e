"""The page in a real browser: Chromium drives a real server with mouse, touch and keyboard."""

import base64
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

pytest.importorskip("starlette", reason="the page needs the web extra")

from common.imaging.read import open_image
from tests.common.photo.web.visits import encoded, png_bomb
from tests.conftest import photo_array

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
LOOKS = os.environ.get("PAGE_LOOKS")  # a folder for screenshots
PAINTED = """() => {
    const figures = [...document.querySelectorAll("figure")];
    return figures.length && figures.every((f) => f.getAttribute("aria-busy") === "false"
        && f.querySelector(".after").dataset.painted && f.querySelector(".before").complete);
}"""
COLOR = """(image) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 40, 30);
    return [...context.getImageData(0, 0, 40, 30).data];
}"""


def drop(page, data, name, kind):
    """Drop a file on the page, as a file manager does."""
    transfer = page.evaluate_handle(
        """([text, name, type]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": transfer})


def until_painted(page):
    page.wait_for_function(PAINTED)


def painted_again(page, change):
    """The mean chroma of what is shown after a change, once it has been painted."""
    count = page.locator(".after").first.get_attribute("data-painted")
    change()
    page.wait_for_function("(n) => document.querySelector('.after').dataset.painted !== n", arg=count)
    until_painted(page)
    return chroma(page)


def shown(page):
    values = page.locator(".after").first.evaluate(COLOR)
    return rgb2lab(np.array(values, np.uint8).reshape(30, 40, 4)[..., :3])


def chroma(page):
    return float(np.hypot(*shown(page)[..., 1:].transpose(2, 0, 1)).mean())


def look(page, name):
    if LOOKS:
        page.screenshot(path=Path(LOOKS) / f"{name}.png", full_page=True)


def test_a_picture_is_dropped_compared_changed_and_downloaded(visit, old, tmp_path):
    page = visit(DESKTOP)
    look(page, "empty")
    drop(page, old.read_bytes(), "old.png", "image/png")
    until_painted(page)
    assert page.locator("#status").inner_text() == "old.png: 240 × 180 pixels"
    assert page.locator("figure").count() == 2  # two models, side by side
    assert page.locator("#format").inner_text().strip() == "PNG, as uploaded"

    before = chroma(page)
    assert painted_again(page, lambda: page.locator("#saturation").fill("2")) > 1.3 * before
    assert painted_again(page, lambda: page.locator("#saturation").fill("0")) < 1
    warm = painted_again(page, lambda: page.locator("#kelvin").fill("3000"))
    assert warm > 10
    assert page.locator("output[for=kelvin]").inner_text() == "3000 K, warmer"
    painted_again(page, lambda: page.get_by_role("button", name="Reset").click())
    assert chroma(page) == pytest.approx(before, rel=0.01)

    box = page.locator(".view").first.bounding_box()
    divider = page.locator(".divider").first
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60, steps=3)
    page.mouse.up()
    assert 23 <= int(divider.get_attribute("aria-valuenow")) <= 27
    shares = [divider.bounding_box()["x"] + 22, page.locator(".divider").nth(1).get_attribute("aria-valuenow")]
    assert shares[0] == pytest.approx(box["x"] + box["width"] * 0.25, abs=2)
    assert shares[1] == divider.get_attribute("aria-valuenow")  # all dividers are one
    look(page, "picture")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the picture colored by second").click()
    assert download.value.suggested_filename == "old.color.png"
    download.value.save_as(tmp_path / "out.png")
    out, rgb = open_image(tmp_path / "out.png").rgb, open_image(old).rgb
    assert out.shape == rgb.shape
    lab = rgb2lab(out)
    assert np.abs(lab[..., 0] - rgb2lab(rgb)[..., 0]).max() <= 1
    assert np.abs(lab[..., 1:]).mean() > 2


def test_models_are_chosen(visit, old):
    page = visit(DESKTOP)
    page.set_input_files("#file", old)
    until_painted(page)
    page.get_by_role("checkbox", name="first").uncheck()
    assert page.locator("figure .name").all_inner_texts() == ["second"]
    assert page.get_by_role("checkbox", name="second").is_disabled()  # one has to stay
    page.get_by_role("checkbox", name="first").check()
    until_painted(page)
    assert page.locator("figure .name").all_inner_texts() == ["first", "second"]


def test_all_by_keyboard(visit, old):
    page = visit(DESKTOP)
    page.on("filechooser", lambda chooser: None)  # now: the browser is not waited for when it is told to report them
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(old)
    until_painted(page)
    order = []
    for _ in range(24):
        page.keyboard.press("Tab")
        order.append(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
    wanted = [
        "button download",
        "divider",
        "restore",
        "more",
        "color",
        "middle",
        "saturation",
        "hue",
        "kelvin",
        "reset",
        "format",
    ]
    assert [name for name in dict.fromkeys(order) if name in wanted] == wanted
    page.locator(".divider").first.focus()
    for key, value in (("ArrowLeft", 48), ("PageUp", 58), ("End", 100), ("ArrowRight", 100), ("Home", 0)):
        page.keyboard.press(key)
        assert int(page.locator(".divider").first.get_attribute("aria-valuenow")) == value
    page.locator("#saturation").focus()
    chroma_before = chroma(page)
    assert painted_again(page, lambda: page.keyboard.press("End")) > chroma_before


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["mouse", "touch"])
def test_hints(visit, old, device):
    pytest.importorskip("common.photo.hints")
    page = visit(device)
    page.set_input_files("#file", old)
    until_painted(page)
    page.locator("label", has_text="Add a hint").click()
    page.locator("#color").fill("#2040e0")
    before = shown(page)[15, 30]
    box = page.locator(".view").first.bounding_box()

    def point(x, y):
        place = {"x": box["width"] * x, "y": box["height"] * y}
        view = page.locator(".view").first
        view.tap(position=place) if device is PHONE else view.click(position=place)

    painted_again(page, lambda: point(0.75, 0.5))
    assert shown(page)[15, 30, 2] < before[2] - 10  # bluer
    assert page.locator("#hints li").count() == 1
    dot = page.locator(".dot").first
    where = page.locator("#hints span").first
    assert abs(int(re.findall(r"\d+", where.inner_text())[0]) - 180) <= 1
    dot.focus()
    painted_again(page, lambda: page.keyboard.press("Shift+ArrowLeft"))
    assert abs(int(re.findall(r"\d+", where.inner_text())[0]) - 168) <= 1
    painted_again(page, lambda: page.get_by_label("Color of hint 1").fill("#e02020"))
    look(page, f"hints {device['viewport']['width']}")
    painted_again(page, lambda: page.get_by_role("button", name="Add a hint in the center").click())
    assert page.locator("#hints li").count() == 2
    for _ in range(2):
        painted_again(page, lambda: page.get_by_role("button", name="Remove hint 1").click())
    assert page.locator("#hints li").count() == 0
    assert np.abs(shown(page)[15, 30] - before).max() < 1


def test_palette_and_undo(visit, old):
    page = visit(DESKTOP)
    page.set_input_files("#file", old)
    until_painted(page)
    before = shown(page)
    page.locator("label", has_text="Add a hint").click()
    box = page.locator(".view").first.bounding_box()
    painted_again(page, lambda: page.locator(".view").first.click(position={"x": box["width"] * 0.75, "y": 60}))
    page.locator(".swatch").first.wait_for()
    swatch = page.locator(".swatch").last
    color = re.search(r"#[0-9a-f]{6}", swatch.get_attribute("aria-label"))[0]
    painted_again(page, swatch.click)
    assert page.get_by_label("Color of hint 1").input_value() == color
    look(page, "palette")
    for _ in range(2):  # the color, then the hint
        painted_again(page, lambda: page.get_by_role("button", name="Undo").click())
    assert page.locator("#hints li").count() == 0
    assert page.get_by_role("button", name="Undo").is_disabled()
    assert np.abs(shown(page) - before).max() < 1


def test_versions_restoration_and_a_fresh_start(visit, tmp_path):
    """The settings of one picture are not those of the next."""
    page = visit(DESKTOP)
    grey = photo_array(11, 180, 240).mean(axis=2)
    for name, values in (("faded.png", 70 + 0.45 * grey), ("next.png", 255 * (grey - grey.min()) / np.ptp(grey))):
        (tmp_path / name).write_bytes(encoded(values.round().astype(np.uint8)))
    page.set_input_files("#file", tmp_path / "faded.png")
    until_painted(page)
    assert page.locator("#condition").inner_text() == "This print is faded."
    before = shown(page)
    page.get_by_role("button", name="Show four versions").click()
    page.wait_for_function("() => document.querySelectorAll('.version img[src]').length === 4")
    painted_again(page, lambda: page.get_by_role("button", name="Version 3").click())
    assert np.abs(shown(page) - before)[:, 22:, 1:].mean() > 1
    look(page, "versions")
    painted_again(page, lambda: page.get_by_label("Restore the lightness").check())
    assert np.ptp(shown(page)[:, 22:, 0]) > 1.3 * np.ptp(before[:, 22:, 0])
    painted_again(page, lambda: page.locator("#saturation").fill("0"))
    look(page, "restored")
    painted_again(page, lambda: page.set_input_files("#file", tmp_path / "next.png"))
    assert page.locator("#condition").inner_text() != "This print is faded."
    assert not page.get_by_label("Restore the lightness").is_checked()
    assert page.locator("#saturation").input_value() == "1"
    assert page.locator(".version").count() == 0
    assert chroma(page) > 2


def test_on_a_phone(visit, old):
    page = visit(PHONE, color_scheme="dark", reduced_motion="reduce")
    look(page, "phone empty")
    assert page.locator("#invitation").is_hidden()  # nothing is dropped or pasted on a phone
    page.set_input_files("#file", old)
    until_painted(page)
    page.locator(".view").first.tap(position={"x": 30, "y": 30})
    assert int(page.locator(".divider").first.get_attribute("aria-valuenow")) < 30
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    small = """() => [...document.querySelectorAll("button, select, .choice span, .divider, #choose")]
        .filter((e) => e.offsetParent && Math.min(e.offsetWidth, e.offsetHeight) < 40).map((e) => e.outerHTML)"""
    assert page.evaluate(small) == []
    look(page, "phone")


def test_refusals_are_shown_on_the_page(visit, old):
    page = visit(DESKTOP)
    messages = page.locator("#error")
    bomb, oversize = png_bomb(20_000, 5_000), b"\x89PNG" + b"x" * 1_000_000
    for data, name, sentence in (
        (bomb, "bomb.png", "bomb.png has 20000x5000 pixels, above the limit of 2 megapixels: make it smaller first."),
        (b"only text", "notes.txt", "notes.txt is not a picture in a supported format"),
        (oversize, "big.png", "big.png is larger than 1 megabytes: make it smaller first."),
        (old.read_bytes()[:-2000], "cut.png", "cut.png is damaged or cut short"),
        (b"", "empty.png", "empty.png is empty (0 bytes): get a complete copy."),
    ):
        drop(page, data, name, "image/png")
        messages.filter(has_text=sentence).wait_for()
        look(page, f"refused {name}")
    assert page.locator("#work").is_hidden()
    page.set_input_files("#file", old)
    until_painted(page)
    assert messages.is_hidden()
    drop(page, b"no picture", "later.png", "image/png")  # what was open stays
    messages.filter(has_text="later.png is not a picture").wait_for()
    assert page.locator("#status").inner_text() == "old.png: 240 × 180 pixels"


def test_an_oversize_upload_is_refused_by_the_server_too(server):
    """A client without its own check gets an answer, and the connection is closed."""
    host, port = re.fullmatch(r"http://(.+):(\d+)/", server).groups()
    with socket.create_connection((host, int(port)), 20) as sent:
        headers = (f"Host: {host}", f"Cookie: colorize={'a' * 32}", "Transfer-Encoding: chunked")
        sent.sendall("\r\n".join(["POST /pictures HTTP/1.1", *headers, "", ""]).encode())
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(16):  # 1.05 MB
            sent.sendall(piece)
        assert b"HTTP/1.1 413" in sent.recv(4096)


def test_a_removed_picture_is_uploaded_again(visit, old, server):
    page = visit(DESKTOP)
    page.set_input_files("#file", old)
    until_painted(page)
    held = page.locator(".before").first.get_attribute("src")
    page.evaluate("(path) => fetch(path, { method: 'DELETE' })", held.removesuffix("/before"))
    assert painted_again(page, lambda: page.locator("#saturation").fill("2")) > 2
    assert page.locator("#error").is_hidden()


def test_closing_the_tab_removes_the_picture(visit, old, server):
    page = visit(DESKTOP)
    page.set_input_files("#file", old)
    until_painted(page)
    held = page.locator(".before").first.get_attribute("src")
    page.goto(server)
    gone = "async (path) => { while ((await fetch(path)).status !== 404); return true; }"
    assert page.evaluate(gone, held)
