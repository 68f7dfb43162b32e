"""What a colored film keeps: frames, times, shape, sound, subtitles, tags, luminance."""

from fractions import Fraction

import av
import numpy as np
import pytest

from common.film.config import FilmError, Span
from common.film.decode import FilmReader
from common.film.encode import EncodeConfig, to_yuv
from common.film.source import read_info
from common.predictor import PredictorConfig, apply_ab, predict_within_memory, working_lightness
from tests.common.film.films import RATE, frames_of, grey_frames, make_film, packets_of

LOSSLESS = EncodeConfig(crf=0, preset="ultrafast")
VARIABLE = [0, 40, 100, 140, 200, 300, 333, 340, 400, 500, 1000, 1010]


def tags_of(path):
    with av.open(str(path)) as film:
        context = film.streams.video[0].codec_context
        return tuple(int(x) for x in (context.colorspace, context.color_range, context.color_primaries,
                                      context.color_trc))  # fmt: skip


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_shape_sound_and_metadata(tmp_path, colorize, short_segments, suffix):
    chapter = {"id": 1, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
    source = make_film(tmp_path / f"a{suffix}", 11, pixel_aspect=Fraction(4, 3), rotation=90, chapters=[chapter],
                       metadata={"title": "Old film"})  # fmt: skip
    target = tmp_path / f"a.color{suffix}"
    assert colorize(source, target).frames == 11
    assert frames_of(target)[0] == pytest.approx(frames_of(source)[0], abs=1e-6)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    with av.open(str(source)) as before, av.open(str(target)) as after:
        old, new = before.streams.video[0], after.streams.video[0]
        assert (new.width, new.height, new.average_rate) == (old.width, old.height, old.average_rate)
        assert new.sample_aspect_ratio == old.sample_aspect_ratio == Fraction(4, 3)
        assert after.duration == pytest.approx(before.duration, abs=1e6 / float(RATE) / 2)
        if suffix != ".mkv":
            assert new.duration * new.time_base == old.duration * old.time_base
        assert next(after.decode(video=0)).rotation == next(before.decode(video=0)).rotation == 90
        assert [c["metadata"]["title"] for c in after.chapters()] == ["One"]
        assert after.metadata["title"] == "Old film"
    assert not (tmp_path / f"a.color{suffix}.parts").exists()


def test_a_variable_frame_rate_is_kept(tmp_path, colorize, short_segments):
    source = make_film(tmp_path / "a.mp4", len(VARIABLE), times=VARIABLE)
    assert colorize(source, tmp_path / "b.mp4").frames == len(VARIABLE)
    assert frames_of(tmp_path / "b.mp4")[0] == frames_of(source)[0] == [t / 1000 for t in VARIABLE]


def test_subtitles_and_attachments(tmp_path, colorize):
    source = make_film(tmp_path / "a.mkv", subtitles="ass", attachment=b"letters", audio="pcm_s16le", start=7)
    colorize(source, tmp_path / "b.mkv")
    for kind in ("audio", "subtitle"):
        assert packets_of(tmp_path / "b.mkv", kind) == packets_of(source, kind) != []
    assert frames_of(tmp_path / "b.mkv")[0] == frames_of(source)[0]
    with av.open(str(tmp_path / "b.mkv")) as film:
        (attachment,) = [s for s in film.streams if s.type == "attachment"]
        assert (attachment.name, attachment.mimetype, attachment.data) == ("font.ttf", "font/ttf", b"letters")
    said = []
    with pytest.raises(FilmError, match="cannot hold the subtitle stream"):
        colorize(source, tmp_path / "b.mp4")
    source = make_film(tmp_path / "c.mkv", attachment=b"letters")
    colorize(source, tmp_path / "d.mp4", say=said.append)
    assert ["attachment stream" in sentence and "left out" in sentence for sentence in said] == [True]
    assert packets_of(tmp_path / "d.mp4", "audio")


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 1, 6, 6), (5, 1, 5, 6), (1, 2, 1, 1), (6, 2, 6, 6)], ids=str)
@pytest.mark.parametrize("form", ["yuv420p", "yuv444p"])
def test_color_tags_and_luma_of_a_grey_ramp(tmp_path, tags, form):
    """Y -> RGB -> Y is exact on grey, for all values that video uses."""
    low, high = (0, 255) if tags[1] == 2 else (16, 235)
    ramp = np.tile(np.arange(256).clip(low, high).astype(np.uint8), (32, 1))
    planes = [ramp, *[np.full((16, 128) if form == "yuv420p" else (32, 256), 128, np.uint8)] * 2]
    frame = av.VideoFrame(256, 32, form)
    for plane, values in zip(frame.planes, planes, strict=True):
        plane.update(np.pad(values, ((0, 0), (0, plane.line_size - values.shape[1]))).tobytes())
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as film:
        stream = film.add_stream("ffv1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = 256, 32, form
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = tags
        film.mux([*stream.encode(frame), *stream.encode(None)])
    info = read_info(source)
    (decoded,) = FilmReader(info).frames()
    assert (decoded.rgb == decoded.rgb[..., :1]).all()
    levels = (ramp.astype(float) - low) * 255 / (high - low)
    assert np.abs(decoded.rgb[..., 0] - levels).max() <= 0.5
    back = to_yuv(decoded.rgb, info, "yuv420p", av.video.reformatter.VideoReformatter())
    Y, U, V = (np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width] for plane in back.planes)
    assert (ramp == Y).all()
    assert (U == 128).all() and (V == 128).all()


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 1, 6, 6), (6, 2, 6, 6)], ids=str)
@pytest.mark.parametrize("codec", ["h264", "h265", "vp9"])
def test_tags_and_luma_of_a_grey_film_after_lossless_encoding(tmp_path, colorize, tags, codec):
    source = make_film(tmp_path / "a.mkv", 3, codec="ffv1", tags=tags, options={})
    grey = lambda L, ab: ab * 0  # noqa: E731
    target = tmp_path / "b.mkv"
    colorize(source, target, encode=EncodeConfig(codec, 0, "ultrafast"), transform=grey)
    assert tags_of(target) == tags_of(source) == tags
    before, after = (frames_of(path, None)[1] for path in (source, target))
    for old, new in zip(before, after, strict=True):
        assert (old[:48] == new[:48]).all()


def test_missing_tags_are_stated(tmp_path, colorize):
    for size, matrix in (((48, 64), 6), ((720, 16), 1)):
        source = make_film(tmp_path / "a.mkv", 1, size, tags=(2, 0, 2, 2))
        colorize(source, tmp_path / "b.mkv", overwrite=True)
        assert tags_of(tmp_path / "b.mkv") == (matrix, 1, 1, 1)


def test_luminance_is_exact_before_encoding(painter, lightness):
    rgb = grey_frames(1)[0] // 2 + np.random.default_rng(0).integers(0, 90, (48, 64, 1), np.uint8)  # with grain
    working = working_lightness(rgb, painter.device)
    ab = predict_within_memory(painter, working, PredictorConfig(32))
    colored = apply_ab(rgb, working, ab, PredictorConfig(32))
    assert np.ptp(colored.astype(int), axis=2).max() > 20
    assert np.abs(lightness(colored) - lightness(rgb)).max() < 0.5


def test_luminance_of_a_lossless_film(tmp_path, colorize, lightness):
    """What 4:2:0 leaves of it: the chroma of four pixels is one value."""
    source = make_film(tmp_path / "a.mkv", 3, codec="ffv1", options={})
    colorize(source, tmp_path / "b.mkv", encode=LOSSLESS)
    for before, after in zip(frames_of(source)[1], frames_of(tmp_path / "b.mkv")[1], strict=True):
        assert np.ptp(after.astype(int), axis=2).max() > 20
        difference = np.abs(lightness(after) - lightness(before))
        assert difference.mean() < 0.6 and difference.max() < 8


def test_odd_sizes(tmp_path, colorize):
    source = make_film(tmp_path / "a.mkv", 3, (47, 63), form="yuv444p")
    colorize(source, tmp_path / "b.mkv")
    assert frames_of(tmp_path / "b.mkv")[1][0].shape == (47, 63, 3)
    with pytest.raises(FilmError, match="63x47 pixels, and av1 needs even numbers"):
        colorize(source, tmp_path / "c.mkv", encode=EncodeConfig("av1"))


def test_interlaced_films_become_progressive_with_as_many_frames(tmp_path, colorize):
    source = make_film(tmp_path / "a.mkv", 8, codec="mpeg2video", interlaced=True, rate=25, options={})
    assert read_info(source).interlaced
    said = []
    colorize(source, tmp_path / "b.mkv", say=said.append)
    assert said == [f"{source} is interlaced: the colored film is progressive, with as many frames"]
    assert frames_of(tmp_path / "b.mkv")[0] == frames_of(source)[0]
    assert not read_info(tmp_path / "b.mkv").interlaced


def test_films_of_ten_bits_are_said_to_become_eight(tmp_path, colorize):
    source = make_film(tmp_path / "a.mp4", 2, form="yuv420p10le")
    said = []
    colorize(source, tmp_path / "b.mp4", say=said.append)
    assert said == [f"{source} has 10 bits per channel: the colored film has 8"]


@pytest.mark.parametrize(("name", "fields"), [
    ("a.avi", {"codec": "mpeg4", "audio": "mp2"}),
    ("a.mpg", {"codec": "mpeg2video", "audio": "mp2", "rate": 25}),
    ("a.ts", {}),
    ("a.webm", {"codec": "libvpx-vp9", "audio": "libopus"}),
])  # fmt: skip
def test_other_containers(tmp_path, colorize, name, fields):
    source = make_film(tmp_path / name, 8, **fields)
    colorize(source, tmp_path / "b.mkv")
    before, after = frames_of(source)[0], frames_of(tmp_path / "b.mkv")[0]
    assert np.diff(after) == pytest.approx(np.diff(before), abs=1.1e-3)  # Matroska counts milliseconds
    old, new = packets_of(source, "audio"), packets_of(tmp_path / "b.mkv", "audio")
    header = 7 if name == "a.ts" else 0  # of each AAC packet in a transport stream
    assert [data for _, data in new] == [data[header:] for _, data in old]
    assert new[0][0] - after[0] == pytest.approx(old[0][0] - before[0], abs=1.1e-3)


def test_a_part(tmp_path, colorize, short_segments):
    source = make_film(tmp_path / "a.mp4", 40)
    colorize(source, tmp_path / "b.mp4", span=Span(0.5, 1.2), encode=LOSSLESS, transform=lambda L, ab: ab * 0)
    times, frames = frames_of(source)
    wanted = [i for i, time in enumerate(times) if 0.5 <= time < 1.2]
    new_times, new_frames = frames_of(tmp_path / "b.mp4")
    assert new_times == pytest.approx([times[i] - 0.5 for i in wanted], abs=1e-3)
    for index, frame in zip(wanted, new_frames, strict=True):
        assert np.abs(frames[index].mean(2) - frame.mean(2)).max() <= 1.5
    old = [(time - 0.5, data) for time, data in packets_of(source, "audio") if 0.5 <= time < 1.2]
    new = packets_of(tmp_path / "b.mp4", "audio")
    assert [data for _, data in new] == [data for _, data in old]
    assert [time for time, _ in new] == pytest.approx([time for time, _ in old], abs=1e-3)
    with pytest.raises(FilmError, match="has no frames in this part"):
        colorize(source, tmp_path / "c.mp4", span=Span(50, 60))
