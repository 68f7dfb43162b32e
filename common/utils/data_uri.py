"""Data URIs, which embed a file in a page."""

import base64


def data_uri(data: bytes, media_type: str) -> str:
    """Encode a file's bytes as a `data:` URI of a media type, such as `image/png`."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
