"""Files that are made to harm whoever decodes them."""

import io

from PIL import Image


def slow_jpeg(side=2000, scans=2000):
    """A progressive JPEG of some kilobytes, whose last scan is repeated: every scan costs milliseconds."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (90, 90, 90)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]
