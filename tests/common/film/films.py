"""Small films made with PyAV: grey clouds that move, a sine tone, subtitles."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from common.film.decode import CONVERSION
from tests.conftest import photo_array

RATE = Fraction(24000, 1001)


def grey_frames(count, height=48, width=64, seed=0):
    """A picture that moves to the left, uint8 [H, W, 3] each, all channels equal."""
    wide = photo_array(seed, height, width + 3 * count)[..., :1].repeat(3, axis=2)
    return [np.ascontiguousarray(wide[:, 3 * i : 3 * i + width]) for i in range(count)]


def make_film(
    path: Path, count=10, size=(48, 64), *, codec="libx264", form="yuv420p", rate=RATE, times=None, options=None,
    audio="aac", subtitles=None, pixel_aspect=None, rotation=0, tags=(6, 1, 6, 6), chapters=(), metadata=None,
    attachment=None, frames=None, interlaced=False, start=0,
):  # fmt: skip
    """Write a film. tags: matrix, range, primaries and transfer. times: of the frames, in milliseconds."""
    rate = Fraction(rate)
    with av.open(str(path), "w") as film:
        film.metadata.update(metadata or {})
        film.set_chapters(list(chapters))
        video = film.add_stream(codec, rate=rate, options=options or {"g": "5"})
        context = video.codec_context
        context.height, context.width, context.pix_fmt = *size, form
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = tags
        if pixel_aspect:
            context.sample_aspect_ratio = pixel_aspect
        if times:
            context.time_base = video.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        if interlaced:
            context.flags |= av.codec.context.Flags.interlaced_dct
        sound = film.add_stream(audio, rate=48000, layout="stereo") if audio else None
        if sound:
            sound.codec_context.bit_rate = 128_000
        text = film.add_stream(subtitles) if subtitles else None
        if attachment:
            film.add_attachment("font.ttf", "font/ttf", attachment)
        packets = []
        for i, rgb in enumerate(frames or grey_frames(count, *size)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format=form, dst_color_range=tags[1], interpolation=CONVERSION)
            frame.pts, frame.time_base = (times[i], Fraction(1, 1000)) if times else (i + start, 1 / rate)
            packets += context.encode(frame)
        packets += context.encode(None)
        seconds = (times[-1] / 1000 if times else count / rate) + start / rate
        for i in range(int(seconds * 48000 / 1024) if sound else 0):
            wave = (np.sin((np.arange(1024) + 1024 * i) * 0.05) * 9000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 1024 * i, Fraction(1, 48000)
            packets += sound.encode(frame)
        packets += sound.encode(None) if sound else []
        for packet in packets:
            if packet.stream_index == 0:
                packet.stream = video
        if text:
            packets.append(subtitle(text, b"Guten Tag"))
        film.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
    return path


def subtitle(stream, text):
    packet = av.Packet(text)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = 100
    packet.duration = 200
    return packet


def packets_of(path, kind):
    """(time in seconds, bytes) of the packets of the first stream of a kind."""
    with av.open(str(path)) as film:
        stream = next(s for s in film.streams if s.type == kind)
        return [(round(float(p.pts * p.time_base), 6), bytes(p)) for p in film.demux(stream) if p.size]


def frames_of(path, form="rgb24"):
    """(time stamps, arrays) of the frames."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        decoded = list(film.decode(stream))
        return [float(f.pts * f.time_base) for f in decoded], [f.to_ndarray(format=form) for f in decoded]
