"""Damage picture files, read them, and print what happened as JSON.

python -m tests.common.imaging.fuzzing 2000      # and another seed, if one is given
"""

from __future__ import annotations

import io
import json
import re
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from common.imaging.header import MAX_PIXELS
from common.imaging.read import Picture, open_image
from common.imaging.write import encode_pages
from common.utils.errors import PictureError
from tests.conftest import photo_array

WAYS = ("bits", "cut", "header", "bytes", "numbers")
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 32, 255, 256, 4096, 12000, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LOSSLESS = ("PNG", "TIFF", "BMP", "PPM")


def whole_files() -> dict[str, bytes]:
    """A file of every format and of every layout that is decoded in its own way."""
    rgb = photo_array(1, 90, 120)
    deep = rgb.astype(np.uint16) * 257
    alpha = np.ascontiguousarray(deep[..., :1])
    like = open_image(encode_pages([(rgb, None)], "PNG"))._replace(alpha=rgb[..., 0], dpi=(300.0, 300.0))
    exif = Image.Exif()
    exif[0x010E] = "a barn"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    like = like._replace(exif=exif.tobytes())
    files = {form: encode_pages([(rgb, None)], form) for form in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "PPM")}
    files |= {f"{form} 16": encode_pages([(deep, like)], form) for form in ("PNG", "TIFF")}
    files |= {f"{form} alpha": encode_pages([(rgb, like)], form) for form in ("PNG", "TIFF", "WEBP")}
    files["TIFF pages"] = encode_pages([(rgb, None), (rgb[:40], None)], "TIFF")
    layouts = {
        "planes": (deep.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
        "tiles": (deep, {"photometric": "rgb", "tile": (16, 32), "compression": "zlib", "predictor": True}),
        "premultiplied": (np.dstack([deep // 2, alpha]), {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        "white is zero": (deep[..., 0], {"photometric": "miniswhite"}),
        "big-endian": (deep, {"photometric": "rgb", "byteorder": ">", "compression": "zlib"}),
    }
    for name, (values, layout) in layouts.items():
        file = io.BytesIO()
        tifffile.imwrite(file, values, **layout)
        files[f"TIFF 16 {name}"] = file.getvalue()
    file = io.BytesIO()
    Image.fromarray(rgb).quantize(16).save(file, "PNG", transparency=3)
    return files | {"PNG palette": file.getvalue()}


def damage(good: bytes, way: str, rng: np.random.Generator) -> bytes:
    """Change a file: single bits, its end, its first bytes, a run of bytes, or integers in its header."""
    data = bytearray(good)
    if way == "bits":
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= 1 << rng.integers(0, 8)
    elif way == "cut":
        del data[rng.integers(0, len(data)) :]
    elif way == "header":
        for place in rng.integers(0, min(64, len(data)), 4):
            data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif way == "bytes":
        start = rng.integers(0, len(data))
        data[start : start + 40] = rng.bytes(40)
    else:
        start, end = 0, min(300, len(data))
        if good[:4] in (b"II*\0", b"MM\0*"):
            order = "<" if good[:2] == b"II" else ">"
            start = struct.unpack(order + "L", good[4:8])[0]
            end = start + 2 + 12 * struct.unpack_from(order + "H", good, start)[0]
        for place in rng.integers(start, end - 4, rng.integers(1, 4)):
            form = rng.choice([">L", "<L", ">H", "<H"])
            struct.pack_into(form, data, place, int(rng.choice(NUMBERS)) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
        repair_checksums(data)
    return bytes(data)


def repair_checksums(data: bytearray) -> None:
    """Make the checksums of PNG chunks right again, so that decoders see the changed numbers."""
    place = 8
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            return
        struct.pack_into(">L", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4


def other_decoder(data: bytes, picture: Picture) -> np.ndarray | None:
    """The picture as tifffile or OpenCV decode it, in the depth of `picture`; None if they do not."""
    if picture.format == "TIFF":
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                page = file.pages[picture.page]
                values, orientation = page.asarray(), page.tags.get(274)
                separate, photometric, extra = page.planarconfig == 2, page.photometric, page.extrasamples
        except Exception:
            return None
        turned = orientation and orientation.value != 1
        values = values.transpose(1, 2, 0) if separate and values.ndim == 3 else values
        if values.dtype != picture.finest.dtype or photometric not in (0, 1, 2) or turned:
            return None
        if values.shape[:2] != picture.rgb.shape[:2]:
            return None
        if 1 in extra:
            most = np.iinfo(values.dtype).max
            divided = (values * float(most) / np.maximum(values[..., 3:], 1)).round()
            values = np.minimum(divided, most).astype(values.dtype)
        values = ~values if photometric == 0 else values
        return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., :3]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if picture.deep is not None else 0)
    try:
        _, found = cv2.imdecodemulti(np.frombuffer(data, np.uint8), flags, range=(picture.page, picture.page + 1))
    except cv2.error:
        return None
    return found[0][..., ::-1] if found and found[0].dtype == picture.finest.dtype else None


def fault(kind: str, good: bytes, data: bytes, picture: Picture) -> str | None:
    """What is wrong with a picture that was read."""
    height, width = picture.rgb.shape[:2]
    if picture.rgb.dtype != np.uint8 or picture.rgb.shape[2] != 3 or not 0 < height * width <= MAX_PIXELS:
        return f"gave {picture.rgb.dtype} {picture.rgb.shape}"
    if picture.deep is not None and not np.array_equal(picture.deep >> 8, picture.rgb):
        return "gave two pictures"
    if len(data) < len(good) and good.startswith(data) and not np.array_equal(
        picture.rgb, open_image(good, page=picture.page).rgb
    ):  # fmt: skip
        return f"cut at {len(data)} of {len(good)} was taken for whole"
    other = other_decoder(data, picture)
    if other is not None and other.shape == picture.rgb.shape and picture.format != "AVIF":
        difference = np.abs(other.astype(int) - picture.finest)
        allowed = 1 if picture.format in LOSSLESS else 3
        if difference.mean() > allowed:
            return f"differs from another decoder by {difference.mean():.1f}"
    if height * width < 1_000_000:
        again = encode_pages([(picture.finest, picture)], picture.format)
        if picture.format in LOSSLESS and picture.icc == b"" and not np.array_equal(
            open_image(again, deep=True).finest, picture.finest
        ):  # fmt: skip
            return "is written as another picture"
    return None


def _peak_memory() -> float:
    """Largest resident memory of this process, in MB; 0 if there is no /proc.

    `getrusage` would count that of the parent before `exec`, too.
    """
    if not Path("/proc/self/status").exists():
        return 0.0
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def run(count: int, seed: int = 0) -> dict:
    """Read `count` damaged files. Returns the figures."""
    files, rng = whole_files(), np.random.default_rng(seed)
    before = _peak_memory()
    slowest, result, wrong, reads = (0.0, ""), Counter(), [], Counter()
    for i in range(count):
        kind = list(files)[i % len(files)]
        way = WAYS[i // len(files) % len(WAYS)]
        label, data = f"{i}: {kind} {way}", damage(files[kind], way, rng)
        started = time.process_time()
        try:
            page = 0
            while True:
                picture = open_image(data, label, page=page, deep=True)
                slowest = max(slowest, (time.process_time() - started, label))
                if found := fault(kind, files[kind], data, picture):
                    wrong.append(f"{label} {found}")
                page += 1
                if page >= min(picture.pages, 3):
                    break
                started = time.process_time()
            result["read"] += 1
            reads[kind] += 1
        except PictureError as error:
            slowest = max(slowest, (time.process_time() - started, label))
            result["refused"] += 1
            if "\n" in str(error) or label not in str(error):
                wrong.append(f"{label} is refused with: {error}")
        except Exception as error:
            wrong.append(f"{label} raised {error!r}")
    after = _peak_memory()
    return {
        "read": result["read"], "refused": result["refused"], "wrong": wrong, "slowest": slowest[0],
        "slowest_file": slowest[1], "memory": after - before, "peak": after, "reads": dict(reads),
    }  # fmt: skip


if __name__ == "__main__":
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    print(json.dumps(run(*map(int, sys.argv[1:]))))
