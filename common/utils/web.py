"""What the web servers share: security headers, checks of host and origin, request parsing, sockets.

The content security policy forbids inline scripts and resources of other sites.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import ipaddress
import json
import logging
import socket
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.utils.errors import UserError

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_POLICY + "; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_BODY = 16_384  # maximum bytes of a request body: enough for answers and forms, not for uploads
_LOG = logging.getLogger("uvicorn.error")  # the logger that writes to the server's terminal


class Guard:
    """Middleware that adds security headers, forbids caching by default, and refuses POST from other sites (403)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not same_origin(Headers(scope=scope)):
            response = PlainTextResponse("this request came from another site", 403)
            return await response(scope, receive, guarded)
        return await self.app(scope, receive, guarded)


def same_origin(headers: Headers) -> bool:
    """Whether the request's Sec-Fetch-Site header, else its Origin header, names this site; True without both."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False


class HideExceptions:
    """Middleware: unexpected exceptions are logged, and answered with status 500 without details."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception:
            _LOG.exception("a request failed")
            if started:
                raise
            await PlainTextResponse("the server failed: see the log on its terminal", 500)(scope, receive, send)


def guards(host: str) -> list[Middleware]:
    """The middleware of every server, outermost first. host: the address that the server will be bound to."""
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host), www_redirect=False)
    return [Middleware(Guard), Middleware(HideExceptions), hosts]


def allowed_hosts(host: str) -> list[str]:
    """Host names that the server accepts. On a loopback address only its own, which prevents DNS rebinding."""
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host.lower() == "localhost"
    if not loopback:
        return ["*"]
    return [*LOOPBACK, f"[{host}]" if ":" in host and not host.startswith("[") else host]


async def client_left(request: Request, error: Exception) -> Response:
    """Exception handler for a client that disconnects before its request is complete. Logs no more than that."""
    _LOG.warning("a client left before its request was complete")
    return Response(status_code=499)  # nobody reads it


async def json_object(request: Request) -> dict:
    """Parse the request body as a JSON object. Raises HTTPException 400 if it is not one."""
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return found


async def form_fields(request: Request) -> dict[str, str]:
    """Parse the request body as a URL-encoded form. Raises HTTPException 400 if it is not one."""
    try:
        return dict(parse_qsl((await request.body()).decode(), max_num_fields=20))
    except ValueError:
        raise HTTPException(400, "the body is not a form") from None


def same_secret(given: str, wanted: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), wanted.encode(errors="surrogatepass"))


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises UserError if the host is unknown or the port cannot be opened."""
    if port > 65535:  # getaddrinfo would take it modulo 65536
        raise UserError(f"port is {port}: expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(
            f"host {host} cannot be found ({error.strerror}): use 127.0.0.1 or an address of this machine"
        ) from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use: choose another with --port") from None
        raise UserError(
            f"port {port} of {host} cannot be opened ({error.strerror}): choose another --port or --host"
        ) from None
    return bound


def serve(app: Starlette, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM. ready: called when the server accepts requests."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="off", backlog=128,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the usual way to stop a server
        Server(config).run(sockets=[bound])
