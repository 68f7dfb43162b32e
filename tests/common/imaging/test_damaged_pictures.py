"""Five hundred damaged files are each refused in one sentence, or read with the size in their header."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# It runs in a separate process, so that its memory can be measured and a crash is detected.
FUZZ = """
import io, json, resource, sys, time
import numpy as np
from PIL import Image
from common.utils.errors import PictureError
from common.imaging.write import encode_pages
from common.imaging.read import MAX_PIXELS, open_image
from tests.conftest import photo_array

rgb = photo_array(1, 90, 120)
deep = rgb.astype(np.uint16) * 257
whole = {form: encode_pages([(rgb, None)], form) for form in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "PPM")}
whole |= {"PNG 16": encode_pages([(deep, None)], "PNG"), "TIFF 16": encode_pages([(deep, None)], "TIFF")}
whole["TIFF pages"] = encode_pages([(rgb, None), (rgb[:40], None)], "TIFF")
rng = np.random.default_rng(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slowest, read, refused, wrong = 0.0, 0, 0, []
for i in range(500):
    kind = list(whole)[i % len(whole)]
    good = whole[kind]
    data = bytearray(good)
    what = ("bits", "cut", "header", "bytes")[i // len(whole) % 4]
    if what == "bits":
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= 1 << rng.integers(0, 8)
    elif what == "cut":
        del data[rng.integers(0, len(data)):]
    elif what == "header":
        for place in rng.integers(0, min(64, len(data)), 4):
            data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    else:
        start = rng.integers(0, len(data))
        data[start : start + 40] = rng.bytes(40)
    started = time.process_time()
    try:
        picture = open_image(bytes(data), f"{kind} {what} {i}", deep=True)
    except PictureError as error:
        refused += 1
        if "\\n" in str(error):
            wrong.append(f"{i}: more than a line: {error}")
    else:
        read += 1
        size = picture.rgb.shape[0] * picture.rgb.shape[1]
        if not (picture.rgb.dtype == np.uint8 and picture.rgb.shape[2] == 3 and 0 < size <= MAX_PIXELS):
            wrong.append(f"{i}: {kind} {what} gave {picture.rgb.shape}")
        if picture.deep is not None and picture.deep.shape != picture.rgb.shape:
            wrong.append(f"{i}: {kind} {what} gave two sizes")
        # a truncated file is refused, unless only data after the pixels is missing
        if what == "cut" and not np.array_equal(picture.rgb, open_image(good).rgb):
            wrong.append(f"{i}: {kind} cut at {len(data)} of {len(good)} was taken for whole")
    slowest = max(slowest, time.process_time() - started)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"slowest": slowest, "read": read, "refused": refused, "wrong": wrong,
                  "memory": (after - before) / 1024, "peak": after / 1024}))
"""


@pytest.mark.slow
def test_500_mutated_files():
    run = subprocess.run([sys.executable, "-c", FUZZ], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["read"] + found["refused"] == 500
    assert found["refused"] > 200
    assert found["read"] > 20
    assert found["slowest"] < 5
    assert found["memory"] < 1000, found
