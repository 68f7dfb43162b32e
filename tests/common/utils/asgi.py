"""A request to an app without a client, for requests that no client sends."""

import asyncio


def asgi(app, headers, receive, path="/pictures"):
    """Send a request to the app without a client: (status, body)."""
    sent = []

    async def call():
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "",
                 "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
                 "http_version": "1.1", "headers": [(b"host", b"127.0.0.1"), *headers]}  # fmt: skip

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(call())
    body = b"".join(m.get("body", b"") for m in sent)
    return (sent[0]["status"], body.decode()) if sent else (None, "")
