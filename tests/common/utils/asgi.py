"""Requests to an app without a client, for requests that no client sends."""

import asyncio


def asgi(app, headers, receive, path="/pictures"):
    """Send one request in an event loop of its own: (status, body)."""
    return asyncio.run(exchange(app, headers, receive, path))


async def exchange(app, headers, receive, path="/pictures"):
    """Send a POST: (status, body), or (None, "") if the app answers nothing."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "",
             "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
             "http_version": "1.1", "headers": [(b"host", b"127.0.0.1"), *headers]}  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(m.get("body", b"") for m in sent)
    return (sent[0]["status"], body.decode()) if sent else (None, "")


def sending(*parts, then=None):
    """A `receive` that sends the parts of a body and then ends it, or waits for what `then` returns."""
    left = list(parts)

    async def receive():
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or then is not None}
        await (then() if then else asyncio.Event().wait())
        return {"type": "http.disconnect"}

    return receive
