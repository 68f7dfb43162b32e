"""Files that strangers made: each is refused, or colorized as far as it goes, in one sentence."""

import os
import random
import socket
from pathlib import Path

import av
import pytest

from common.film import source as film_source
from common.film.colorize import FilmResult
from common.film.config import FilmConfig, FilmError, Span
from common.film.encode import EncodeConfig
from common.film.preview import preview
from common.imaging.write import save_image
from common.utils.errors import UserError
from tests.common.film.films import frames_of, make_film, packets_of
from tests.conftest import photo_array


def silent_film(path):
    with av.open(str(path), "w") as film:
        sound = film.add_stream("aac", rate=48000, layout="stereo")
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        frame.sample_rate = 48000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        film.mux([*sound.encode(frame), *sound.encode(None)])


def film_without_frames(path):
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.codec_context.width, stream.codec_context.height = 64, 48
        film.start_encoding()


BAD = {
    "text.mp4": (lambda path: path.write_text("not a film at all\n" * 50), "is not a film in a supported format"),
    "photo.mp4": (lambda path: save_image(path.with_suffix(".png"), photo_array(0)) or os.rename(
        path.with_suffix(".png"), path), "is not a film in a supported format"),
    "empty.mp4": (lambda path: path.write_bytes(b""), r"empty.mp4 is empty \(0 bytes\): get a complete copy$"),
    "folder.mp4": (lambda path: path.mkdir(), "is a folder: expected a film"),
    "missing.mp4": (lambda path: None, "does not exist"),
    "sound.mp4": (silent_film, "has no video"),
    "none.mkv": (film_without_frames, "holds no frames|is not a film|has no video"),
    "moov.mp4": (lambda path: path.write_bytes(make_film(path).read_bytes()[:3000]), "is not a film .* or is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_sentence(tmp_path, colorize, name):
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(FilmError, match=message) as caught:
        colorize(tmp_path / name, tmp_path / "out.mp4")
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4.parts").exists()


@pytest.mark.parametrize(("tags", "kind"), [((9, 1, 9, 16), "PQ"), ((9, 1, 9, 18), "HLG"), ((9, 1, 9, 1), "BT.2020")])
def test_high_dynamic_range_is_refused(tmp_path, colorize, tags, kind):
    source = make_film(tmp_path / "a.mp4", 2, form="yuv420p10le", tags=tags)
    with pytest.raises(FilmError, match=rf"high dynamic range or wide gamut \({kind}\): convert it to BT.709 first"):
        colorize(source, tmp_path / "b.mp4")


def test_sound_that_the_container_cannot_hold_is_refused_before_the_work(tmp_path, colorize):
    source = make_film(tmp_path / "a.mkv", 2)
    with pytest.raises(FilmError, match=r"b.webm cannot hold video of codec h264: use --codec vp9"):
        colorize(source, tmp_path / "b.webm")
    with pytest.raises(FilmError, match=r"b.webm cannot hold the audio stream 1 \(aac\) of .*: use --out .*/b.mp4"):
        colorize(source, tmp_path / "b.webm", encode=EncodeConfig("vp9"))
    windows = make_film(tmp_path / "a.wmv", 2, codec="mpeg4", audio="wmav2")
    with pytest.raises(FilmError, match=r"b.mkv cannot hold the audio stream 1 \(wmav2\) of .*: convert that stream"):
        colorize(windows, tmp_path / "b.mkv")
    with pytest.raises(FilmError, match=r"b.gif names no film format to write: use one of .mp4"):
        colorize(source, tmp_path / "b.gif")


def test_a_size_that_the_encoder_does_not_take_is_one_sentence(tmp_path, colorize):
    source = make_film(tmp_path / "a.mp4", 2, (8, 8))
    with pytest.raises(FilmError, match=r"a.mp4 cannot be encoded as h265 \(.*\): use --codec h264"):
        colorize(source, tmp_path / "b.mp4", encode=EncodeConfig("h265"))


def test_too_many_pixels_are_refused_before_decoding(tmp_path, colorize, monkeypatch):
    monkeypatch.setattr(film_source, "MAX_PIXELS", 3000)
    monkeypatch.setattr(film_source, "_first_frame", None)
    source = make_film(tmp_path / "a.mp4", 2)
    with pytest.raises(FilmError, match=r"frames of 64x48 pixels, above the limit of 0.003 megapixels"):
        colorize(source, tmp_path / "b.mp4")


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_film_that_is_cut_off_is_colorized_as_far_as_it_goes(tmp_path, colorize, share):
    source = make_film(tmp_path / "a.mkv", 96)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    result = colorize(source, tmp_path / "b.mkv")
    assert 20 < result.frames == len(frames_of(tmp_path / "b.mkv")[0]) < 90
    assert result.damage.startswith(f"{source} is damaged at 0:0")


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libvpx-vp9"])
def test_a_film_with_damaged_packets_is_colorized_as_far_as_it_goes(tmp_path, colorize, short_segments, codec):
    source = make_film(tmp_path / "a.mkv", 40, (96, 128), codec=codec, options={"g": "10"})
    data = bytearray(source.read_bytes())
    for _, packet in packets_of(source, "video")[26:29]:
        start = data.index(packet) + len(packet) // 3
        data[start : start + len(packet) // 2] = bytes(random.Random(0).choices(range(256), k=len(packet) // 2))
    source.write_bytes(data)
    result = colorize(source, tmp_path / "b.mkv")
    assert 30 <= result.frames == len(frames_of(tmp_path / "b.mkv")[0]) <= 40
    assert result.damage.startswith(f"{source} is damaged at 0:01 (")
    assert packets_of(tmp_path / "b.mkv", "audio") == packets_of(source, "audio")


def test_damage_outside_of_the_part_is_not_reported(tmp_path, colorize):
    source = make_film(tmp_path / "a.mkv", 60, (96, 128), options={"g": "10"})
    data, (_, packet) = source.read_bytes(), packets_of(source, "video")[5]
    source.write_bytes(data.replace(packet, packet[: len(packet) // 3] + bytes(len(packet) - len(packet) // 3)))
    assert colorize(source, tmp_path / "b.mkv", span=Span(0, 0.5)).damage
    assert colorize(source, tmp_path / "c.mkv", span=Span(1, 1.5)) == FilmResult(12, "")


def test_a_change_of_size_ends_the_film(tmp_path, colorize):
    first, second = make_film(tmp_path / "a.ts", 10, audio=None), make_film(tmp_path / "c.ts", 10, (96, 64), audio=None)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    result = colorize(first, tmp_path / "b.mkv")
    assert result.frames == 10
    assert "the size of the frames changes to 64x96" in result.damage


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {}\n"


@pytest.mark.parametrize("text", [PLAYLIST, CONCAT], ids=["playlist", "list of files"])
def test_a_film_cannot_make_the_program_read_other_files(tmp_path, colorize, text):
    other = make_film(tmp_path / "secret.ts", 3)
    source = tmp_path / "a.mp4"
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in (other.name, other, f"http://127.0.0.1:{server.getsockname()[1]}/secret.ts"):
            source.write_text(text.format(name))
            with pytest.raises(FilmError, match="is not a film in a supported format"):
                colorize(source, tmp_path / "b.mp4")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has connected
            server.accept()


def test_a_name_like_an_address_is_a_file(tmp_path, colorize, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_film(tmp_path / "film.mp4", 2).rename(tmp_path / "concat:a|b.mp4")
    assert colorize(Path("concat:a|b.mp4"), Path("out.mp4")).frames == 2


def test_impossible_options():
    wrong = {"codec": ("gif", "h264"), "crf": (52, "a number from 0 to 51"), "preset": ("fastest", "ultrafast")}
    for name, (value, expected) in wrong.items():
        fields, message = {name: value}, f"--{name} is {value}: expected {expected}"
        with pytest.raises(UserError, match=message):
            EncodeConfig(**fields)
    with pytest.raises(UserError, match="from 5 s to 5 s is empty"):
        Span(5, 5)


def test_the_sheet_of_stills(tmp_path, painter):
    source = make_film(tmp_path / "a.mkv", 48, pixel_aspect=None)
    sheet = preview(painter, source, 7, FilmConfig(32), Span())
    width, height = 320, 240
    assert sheet.size == (5 * (width + 6) + 6, 2 * (24 + 2 * (height + 6)))
    grey = sheet.crop((6, 24, 6 + width, 24 + height)).convert("HSV").getchannel("S")
    colored = sheet.crop((6, 30 + height, 6 + width, 30 + 2 * height)).convert("HSV").getchannel("S")
    assert grey.getextrema() == (0, 0) and colored.getextrema()[1] > 50
    with pytest.raises(FilmError, match="has no frames in this part"):
        preview(painter, source, 2, FilmConfig(32), Span(100, 101))
