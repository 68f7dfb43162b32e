"""The server of the page: endpoints, refusals, ownership and expiry of uploads."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
from starlette.testclient import TestClient

from common.imaging.read import open_image
from common.photo.edit import Edit
from common.photo.hints import Hint
from common.photo.web import session
from common.photo.web.page import create_app
from common.predictor import PredictorConfig, colorize_photo
from common.registry import build_colorizer
from common.utils.errors import UserError
from common.utils.web import LOOPBACK, allowed_hosts
from tests.common.photo.web.visits import BASE, encoded, person, png_bomb, send
from tests.conftest import photo_array


def test_upload_preview_and_download(client, models):
    rgb = photo_array(5, 90, 120)
    response = send(client, encoded(rgb), "gr%C3%BCn%20%3Cb%3E.png")
    assert response.status_code == 201
    about = response.json()
    assert len(about.pop("id")) >= 20
    seen = {"width": 120, "height": 90, "preview_width": 120, "preview_height": 90}
    scan = {"faded": False, "colored": True}
    assert about == {"name": "grün b.png", "format": "PNG", "pages": 1, **seen, **scan}
    at = f"/pictures/{response.json()['id']}"
    before = client.get(f"{at}/before")
    assert before.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(before.content)).size == (120, 90)

    plain, strong = (
        client.post(f"{at}/paint", json={"model": "one", "saturation": s, "hue": 0, "kelvin": None, "hints": []})
        for s in (1, 1.8)
    )
    assert plain.status_code == strong.status_code == 200
    chroma = [np.abs(rgb2lab(Image.open(io.BytesIO(x.content)))[..., 1:]).mean() for x in (plain, strong)]
    assert chroma[1] > 1.2 * chroma[0] > 2

    asked = {"model": "two", "saturation": 1.3, "hue": 20, "kelvin": 4000}
    result = client.post(f"{at}/result", json=asked)
    assert result.headers["content-type"] == "image/png"
    assert result.headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%BCn%20b.color.png"
    out = open_image(result.content, "result")
    assert np.array_equal(
        out.rgb, colorize_photo(models[1].colorizer, rgb, PredictorConfig(32), Edit(1.3, 20, 4000))
    )  # as the command does
    assert np.abs(rgb2lab(out.rgb)[..., 0] - rgb2lab(rgb)[..., 0]).max() < 1


def test_the_download_keeps_format_depth_alpha_and_dpi(client):
    deep = np.dstack([photo_array(6)[..., 0].astype(np.uint16) * 257 + 3] * 3)[..., 0]
    about = send(client, encoded(deep, "TIFF", dpi=(300, 300)), "scan.tif").json()
    result = client.post(f"/pictures/{about['id']}/result", json={"model": "one"})
    assert result.headers["content-disposition"].endswith("scan.color.tif")
    out = open_image(result.content, "scan", deep=True)
    assert (out.format, out.deep.dtype, out.dpi) == ("TIFF", np.uint16, (300, 300))
    alpha = np.dstack([photo_array(7), photo_array(8)[..., 0]])
    about = send(client, encoded(alpha), "cut.png").json()
    assert client.get(f"/pictures/{about['id']}/before").status_code == 200
    out = open_image(client.post(f"/pictures/{about['id']}/result", json={"model": "one"}).content)
    assert np.array_equal(out.alpha, alpha[..., 3])
    about = send(client, encoded(photo_array(3), "JPEG"), "x.jpeg").json()
    for form, suffix in (("JPEG", "jpeg"), ("PNG", "png")):
        result = client.post(f"/pictures/{about['id']}/result", json={"model": "one", "format": form})
        assert result.headers["content-disposition"].endswith(f"x.color.{suffix}")
        assert open_image(result.content).format == form


def test_a_tiff_with_the_exif_of_a_camera_is_downloaded(client):
    """Pillow's own writer of TIFF raises RuntimeError for it."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    about = send(client, encoded(photo_array(3), "TIFF", exif=exif.tobytes()), "x.tif").json()
    result = client.post(f"/pictures/{about['id']}/result", json={"model": "one"})
    assert result.status_code == 200
    with Image.open(io.BytesIO(result.content)) as image:
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


def test_previews_are_of_screen_size_and_the_network_runs_once(app, client, models, monkeypatch):
    runs = []
    run = session.predict_within_memory
    monkeypatch.setattr(session, "predict_within_memory", lambda *a: runs.append(a) or a[-1]("tight") or run(*a))
    about = send(client, encoded(np.zeros((300, 2500, 3), np.uint8) + 90)).json()
    assert (about["width"], about["preview_width"], about["preview_height"]) == (2500, 1024, 123)
    for saturation in (0.5, 1, 2):
        painted = client.post(f"/pictures/{about['id']}/paint", json={"model": "one", "saturation": saturation})
        assert Image.open(io.BytesIO(painted.content)).size == (1024, 123)
        assert painted.headers["x-note"] == "tight"
    assert len(runs) == 1


LOOKS = [
    *(session.Look(edit) for edit in (Edit(), Edit(1.6, 40), Edit(0.7, 0, 2500), Edit(1.2, -90, 12000))),
    session.Look(restore=True),
    session.Look(version=2),
    session.Look(Edit(hints=(Hint(0.5, 0.5, (40.0, 30.0)),)), restore=True, version=1),
]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_the_preview_equals_the_download(models, look):
    grey = photo_array(9, 300, 400).mean(axis=2, keepdims=True)
    rgb = (70 + 0.45 * grey).round().astype(np.uint8).repeat(3, axis=2)  # a faded print
    opened = session.open_session(encoded(rgb), "old.png", 10**6, torch.device("cpu"))
    preview, _ = session.render_preview(opened, models[0], look)
    file, _ = session.render_file(encoded(rgb), opened, models[0], look, "PNG")
    shown, saved = (rgb2lab(Image.open(io.BytesIO(data))) for data in (preview, file))
    difference = np.linalg.norm(shown - saved, axis=2)
    assert difference.mean() < 1  # a JPEG's own
    assert np.quantile(difference, 0.99) < 4


def test_hints_color_their_places(client):
    pytest.importorskip("common.photo.hints")
    about = send(client, encoded(np.full((60, 80, 3), 128, np.uint8))).json()
    at = f"/pictures/{about['id']}/paint"
    asked = {"model": "one", "hints": ["20,30,#2040e0"]}
    (blue, grey, again) = (client.post(at, json=body) for body in (asked, {"model": "one"}, asked))
    b = [rgb2lab(Image.open(io.BytesIO(x.content)))[30, 20, 2] for x in (blue, grey, again)]
    assert b[0] < b[1] - 20
    assert b[2] == b[0]
    for hints in (["80,0,#000000"], ["0,0,reddish"], "0,0,#000000", [3], ["1,1,#aabbcc"] * (session.MAX_HINTS + 1)):
        refused = client.post(at, json={"model": "one", "hints": hints})
        assert refused.status_code == 422
        assert "\n" not in refused.text


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"", 422, "f.png is empty (0 bytes)"),
        (b"hello, I am a text", 422, "f.png is not a picture in a supported format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "is not a picture in a supported format"),
        (png_bomb(12_000, 8_000), 422, "f.png has 12000x8000 pixels, above the limit of 1 megapixels"),
        (png_bomb(200_000, 200_000), 422, "f.png has too many pixels, above the limit of 1 megapixels"),
        (encoded(photo_array(3, 200, 200))[:-4000], 422, "f.png is damaged or cut short"),
        (encoded(photo_array(3, 200, 200), "JPEG")[:-2000], 422, "f.png is damaged or cut short"),
        (b"x" * 200_001, 413, "f.png is larger than 0.2 megabytes: make it smaller first"),
    ],
    ids=["empty", "text", "svg", "bomb", "larger bomb", "cut PNG", "cut JPEG", "oversize"],
)  # fmt: skip
def test_files_that_are_not_pictures_are_refused_in_one_sentence(app, client, data, status, says):
    taken = app.state.endpoints.uploads.reserved
    refused = send(client, data, "f.png")
    assert refused.status_code == status
    assert says in refused.text
    assert "\n" not in refused.text
    assert app.state.endpoints.uploads.reserved == taken


def test_only_the_browser_that_uploaded_a_picture_can_access_it(app, client):
    about = send(client).json()
    stranger = person(app)
    nobody = TestClient(app, base_url=BASE)
    at = f"/pictures/{about['id']}"
    for who, status in ((stranger, 404), (nobody, 403), (client, 200)):
        assert who.get(f"{at}/before").status_code == status
        assert who.post(f"{at}/paint", json={"model": "one"}).status_code == status
        assert who.post(f"{at}/result", json={"model": "one"}).status_code == status
    assert send(nobody).status_code == 403
    stranger.delete(at)
    assert client.get(f"{at}/before").status_code == 200
    client.delete(at)
    gone = client.get(f"{at}/before")
    assert (gone.status_code, gone.text) == (404, "the server no longer has this picture: choose it again")


def test_the_cookie_is_hidden_from_scripts_and_other_sites(app):
    client = TestClient(app, base_url=BASE)
    first = client.get("/").headers["set-cookie"]
    assert "HttpOnly" in first
    assert "SameSite=strict" in first
    assert "set-cookie" not in client.get("/").headers  # it stays the same over tabs


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_is_a_sentence(client, monkeypatch, error):
    about = send(client).json()

    def fail(*args):
        raise error

    monkeypatch.setattr(session, "apply_ab", fail)
    monkeypatch.setattr(session, "lab_to_rgb", fail)
    for what in ("paint", "result"):
        refused = client.post(f"/pictures/{about['id']}/{what}", json={"model": "one"})
        assert refused.status_code == 503
        assert refused.text.startswith("there is not enough memory for this picture now")


def test_unexpected_errors_are_logged_and_not_shown(client, monkeypatch, caplog):
    monkeypatch.setattr(session, "open_session", lambda *a: 1 / 0)
    failed = send(client)
    assert (failed.status_code, failed.text) == (500, "the server failed: see the log on its terminal")
    assert "ZeroDivisionError" in caplog.text
    assert "default-src 'none'" in failed.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/static/none.js", "/nowhere", "/pictures/x/before"])
def test_every_response_has_the_security_headers(client, path):
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' blob:"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_page_loads_nothing_from_other_sites(client):
    for path in ("/", "/static/page.js", "/static/panel.js", "/static/server.js", "/static/style.css"):
        text = client.get(path).text
        assert "//" not in text.replace("// ", "").replace("http://www.w3.org/2000/svg", ""), path
    assert " style=" not in client.get("/").text
    assert "<script>" not in client.get("/").text


@pytest.mark.parametrize(
    "path", ["/static/../page.py", "/static/%2e%2e/page.py", "/static/..%2f..%2fimages.py", "/static//etc/passwd"]
)
def test_static_files_are_those_of_the_page(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://evil.example"}]
)
def test_other_sites_cannot_write(app, client, headers):
    for ask in (client.post("/pictures", content=b"x", headers=headers), client.delete("/pictures/x", headers=headers)):
        assert ask.status_code == 403


def test_other_host_names_are_refused(app, models):
    client = TestClient(app, base_url="http://rebound.example")
    assert client.get("/").status_code == 400
    for host in ("127.0.0.1:8001", "localhost", "[::1]:99", "LOCALHOST:1"):
        assert client.get("/", headers={"host": host}).status_code == 200
    assert allowed_hosts("127.0.0.1")[:3] == [*LOOPBACK]
    assert "[::1]" in allowed_hosts("::1")
    assert "127.0.0.5" in allowed_hosts("127.0.0.5")
    assert allowed_hosts("0.0.0.0") == allowed_hosts("192.168.1.4") == ["*"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "one", "saturation": 9}, "saturation is 9"),
        ({"model": "one", "saturation": "1"}, "saturation is not a number"),
        ({"model": "one", "hue": True}, "hue is not a number"),
        ({"model": "one", "kelvin": 10}, "the color temperature is 10"),
        ({"model": "one", "kelvin": 10**400}, "kelvin is too large"),
        ({"model": "three"}, "model is one of one, two"),
        ({"model": ["one"]}, "model is one of one, two"),
        ({}, "model is one of one, two"),
    ],
)
def test_bad_settings_are_one_sentence(client, body, says):
    about = send(client).json()
    refused = client.post(f"/pictures/{about['id']}/paint", json=body)
    assert refused.status_code == 422
    assert says in refused.text
    refused = client.post(f"/pictures/{about['id']}/result", json={"model": "one", "format": "GIF"})
    assert refused.text == "format is that of the uploaded picture, or PNG"


def test_large_settings_are_refused_unread(client):
    about = send(client).json()
    assert client.post(f"/pictures/{about['id']}/paint", content=b"[" * 20_000).status_code == 413


def test_models_of_the_same_name_get_unique_names(tmp_path):
    from common.checkpoint import save_weights

    model = {"network": "small", "width": 0.25}
    state = build_colorizer("classification", **model).state_dict()
    card = {"family": "classification", "model": model, "size": 32}
    for path, more in (("a", {}), ("b", {"name": "a"})):
        save_weights(tmp_path / f"{path}.safetensors", state, card | more)
    names = [str(tmp_path / f"{path}.safetensors") for path in ("a", "b", "a")]
    models = session.load_models(names, torch.device("cpu"))
    assert [model.name for model in models] == ["a", "a (2)", "a (3)"]
    with pytest.raises(UserError, match="do not exist"):
        session.load_models([str(tmp_path / "none.safetensors")], torch.device("cpu"))


def test_of_the_installed_models_only_the_default_is_loaded_at_start(models, monkeypatch):
    loaded, colorizer = [], models[0].colorizer
    monkeypatch.setattr(session, "load_colorizer", lambda path, device: loaded.append(path.stem) or colorizer)
    installed = session.load_installed_models("photo", torch.device("cpu"))
    assert [model.name for model in installed] == ["photo", *sorted({m.name for m in installed} - {"photo"})]
    assert len(installed) == 7
    client = person(create_app(installed))
    picture = send(client).json()["id"]
    assert loaded == ["photo"]
    for _ in range(2):
        assert client.post(f"/pictures/{picture}/paint", json={"model": "calm64"}).status_code == 200
    assert loaded == ["photo", "calm64"]


def test_restoration_and_versions_change_the_preview(client):
    """Restoration changes the lightness, versions the color; what is sent describes the print."""
    faded = (70 + 0.45 * photo_array(9, 90, 120).mean(axis=2)).round().astype(np.uint8)
    about, colored = (send(client, encoded(rgb)).json() for rgb in (faded, photo_array(9)))
    assert (about["faded"], about["colored"], colored["colored"]) == (True, False, True)
    at = f"/pictures/{about['id']}/paint"

    def lab(**look):
        answer = client.post(at, json={"model": "one", **look})
        assert answer.status_code == 200
        return rgb2lab(Image.open(io.BytesIO(answer.content)))

    plain, restored, other, again = lab(), lab(restore=True), lab(version=2), lab()
    assert np.ptp(restored[..., 0]) > 1.5 * np.ptp(plain[..., 0])
    assert np.abs(other - plain)[..., 0].max() < 6  # a JPEG's own
    assert np.abs(other - plain)[..., 1:].mean() > 2
    assert np.array_equal(plain, again)
    for look in ({"restore": 1}, {"version": 4}, {"version": -1}, {"version": True}, {"version": "1"}):
        assert client.post(at, json={"model": "one", **look}).status_code == 422


def test_likely_colors_of_a_place(client):
    about = send(client).json()
    at = f"/pictures/{about['id']}/palette"
    colors = client.post(at, json={"model": "one", "x": 20, "y": 30}).json()["colors"]
    assert 1 <= len(colors) <= 6
    assert all(re.fullmatch("#[0-9a-f]{6}", color["color"]) for color in colors)
    assert sum(color["share"] for color in colors) <= 1.01
    for place in ({}, {"x": -1, "y": 0}, {"x": 0, "y": 1000}, {"x": True, "y": 0}, {"x": 1.5, "y": 0}):
        assert client.post(at, json={"model": "one", **place}).status_code == 422
