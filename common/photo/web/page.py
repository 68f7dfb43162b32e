"""The page: a picture comes in, is colored and looked at, and goes out again; nothing of it is stored on disk."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.photo.web import session as desk
from common.photo.web.jobs import Busy, Jobs, LeftQueue
from common.photo.web.uploads import KEEP_SECONDS, Full, Gone, Upload, Uploads, overhead_of
from common.utils.errors import UserError
from common.utils.web import MAX_BODY, Guard, json_object

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_COOKIE = "colorize"
_RECEIVE_SECONDS = 30.0  # between two pieces of an upload
_UPLOADS_IN_MEMORY = 8  # of the largest size
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    max_upload: bytes of a file. max_pixels: of a picture. memory: bytes of all uploads together (default: eight of the
    largest). keep_seconds: how long an upload stays after its last use. waiting: pieces of work in the queue.
    """

    max_upload: int = 50_000_000
    max_pixels: int = 40_000_000
    memory: int | None = None
    keep_seconds: float = KEEP_SECONDS
    waiting: int = 16


class Pages:
    """The endpoints. Everything that takes long runs in a thread, one piece at a time."""

    def __init__(self, models: Sequence[desk.Model], limits: Limits) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        overhead = overhead_of(len(self.models))
        memory = limits.memory or _UPLOADS_IN_MEMORY * (limits.max_upload + overhead)
        self.uploads = Uploads(memory, overhead, limits.keep_seconds)
        self.jobs = Jobs(limits.waiting)
        self.sweeper: asyncio.TimerHandle | None = None
        loader = PackageLoader("common.photo.web")
        self.templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)

    async def page(self, request: Request) -> Response:
        """The page itself, and the cookie that uploads are bound to."""
        shown = {
            "models": [{"name": model.name, "about": model.about} for model in self.models.values()],
            "limits": {"bytes": self.limits.max_upload, "hints": desk.MAX_HINTS},
            "megabytes": f"{self.limits.max_upload / 1e6:g}",
            "megapixels": f"{self.limits.max_pixels / 1e6:g}",
            "minutes": f"{max(1, round(self.limits.keep_seconds / 60))}",
        }
        response = HTMLResponse(self.templates.get_template("page.html").render(shown))
        if not _owner(request):
            secure = request.url.scheme == "https"
            response.set_cookie(
                _COOKIE, secrets.token_urlsafe(24), httponly=True, samesite="strict", secure=secure, path="/"
            )
        return response

    async def upload(self, request: Request) -> Response:
        """Take a file, which is the body as it stands, and open it."""
        owner, name = _required_owner(request), _file_name(request.headers.get("x-name", ""))
        self.uploads.take(self.uploads.overhead)
        taken = self.uploads.overhead
        try:
            file = io.BytesIO()
            async for chunk in self._pieces(request, name):
                self.uploads.take(len(chunk))
                taken += len(chunk)
                file.write(chunk)
            data = file.getvalue()
            if not data:
                raise UserError(f"{name} is empty (0 bytes): get a whole copy")
            device = next(iter(self.models.values())).device
            opened = await self._job(
                request, owner, lambda: desk.open_picture(data, name, self.limits.max_pixels, device)
            )
        except BaseException:
            self.uploads.give(taken)
            raise
        upload = self.uploads.add(owner, data, opened)
        self._sweep()
        return JSONResponse({"id": upload.id, **opened.about()}, 201)

    async def _pieces(self, request: Request, name: str) -> AsyncIterator[bytes]:
        """The body's pieces as they come. Raises HTTPException 413 as soon as it is, or says it will be, too large."""
        limit, count = self.limits.max_upload, 0
        too_large = HTTPException(413, f"{name} is larger than {limit / 1e6:g} megabytes: make it smaller first")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise too_large
        stream = request.stream()
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream, None), _RECEIVE_SECONDS)
            except asyncio.TimeoutError:
                raise HTTPException(408, f"{name} stopped coming: send it again") from None
            if chunk is None:
                return
            count += len(chunk)
            if count > limit:
                raise too_large
            yield chunk

    async def before(self, request: Request) -> Response:
        """The picture as it came, at screen size."""
        return Response(self._upload(request).opened.before, media_type="image/jpeg")

    async def paint(self, request: Request) -> Response:
        """The picture at screen size, colored."""
        upload, model, edit, _ = await self._asked(request)
        data, note = await self._job(request, upload.owner, lambda: desk.paint_preview(upload.opened, model, edit))
        return Response(data, media_type="image/jpeg", headers={"x-note": quote(note)} if note else None)

    async def result(self, request: Request) -> Response:
        """The picture at its full size, colored, as a file."""
        upload, model, edit, given = await self._asked(request)
        form = given.get("format", upload.opened.form)
        if not (isinstance(form, str) and form in {upload.opened.form, "PNG"}):
            raise UserError("format is that of the picture that was sent, or PNG")
        data, name = await self._job(
            request, upload.owner, lambda: desk.paint_file(upload.data, upload.opened, model, edit, form)
        )
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(data, media_type=desk.MEDIA_TYPES[form], headers=headers)

    async def forget(self, request: Request) -> Response:
        """Drop a picture, because its tab says so."""
        self.uploads.drop(_owner(request), request.path_params["id"])
        return Response(status_code=204)

    async def place(self, request: Request) -> Response:
        """How many pieces of work are before one of one's own, and how many of these are other people's."""
        place, others = self.jobs.place(_owner(request), request.path_params["ticket"]) or (None, None)
        return JSONResponse({"place": place, "others": others})

    def _upload(self, request: Request) -> Upload:
        return self.uploads.get(_required_owner(request), request.path_params["id"])

    async def _asked(self, request: Request) -> tuple[Upload, desk.Model, desk.Edit, dict]:
        upload, given = self._upload(request), await json_object(request)
        model = self.models.get(given.get("model")) if isinstance(given.get("model"), str) else None
        if model is None:
            raise UserError(f"model is one of {', '.join(self.models)}")
        return upload, model, desk.read_edit(given, upload.opened), given

    async def _job(self, request: Request, owner: str, work: Callable[[], T]) -> T:
        return await self.jobs.run(request, owner, request.headers.get("x-ticket", "")[:64], work)

    def _sweep(self) -> None:
        """Forget old uploads now and whenever the next one becomes old."""
        if self.sweeper is not None:
            self.sweeper.cancel()
        wait = self.uploads.sweep()
        self.sweeper = None if wait is None else asyncio.get_running_loop().call_later(wait + 0.01, self._sweep)


def _owner(request: Request) -> str:
    return request.cookies.get(_COOKIE, "")[:64]


def _required_owner(request: Request) -> str:
    owner = _owner(request)
    if len(owner) < 16:
        raise HTTPException(403, "this page needs its cookie: allow cookies, and load it again")
    return owner


def _file_name(quoted: str) -> str:
    """What sentences and downloads call a file: its last part, without what cannot be shown."""
    name = unquote(quoted[:1000], errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter for letter in name if letter.isprintable() and letter not in '"<>|:*?')[-120:]
    return name.strip(". ") or "picture"


class Calm:
    """Middleware: what nobody foresaw is logged, and the page is told that something failed, not what."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            logging.getLogger("uvicorn.error").exception("a request failed")
            if started:
                raise
            await PlainTextResponse("something failed here: its server's terminal says what", 500)(scope, receive, send)


_STATUS = {Gone: 404, Full: 503, Busy: 503, desk.NoMemory: 503}


async def _refused(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), _STATUS.get(type(error), 422))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # to nobody


def allowed_hosts(host: str) -> list[str]:
    """Host names that the page answers to: on a loopback address its own, so that no other site's name leads there."""
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host.lower() == "localhost"
    if not loopback:
        return ["*"]
    return [*LOOPBACK, f"[{host}]" if ":" in host and not host.startswith("[") else host]


def create_app(models: Sequence[desk.Model], limits: Limits | None = None, host: str = "127.0.0.1") -> Starlette:
    """The page as a web application. host: the address that it is going to be bound to."""
    pages = Pages(models, limits or Limits())
    routes = [
        Route("/", pages.page),
        Route("/pictures", pages.upload, methods=["POST"]),
        Route("/pictures/{id}", pages.forget, methods=["DELETE"]),
        Route("/pictures/{id}/before", pages.before),
        Route("/pictures/{id}/paint", pages.paint, methods=["POST"], max_body_size=MAX_BODY),
        Route("/pictures/{id}/result", pages.result, methods=["POST"], max_body_size=MAX_BODY),
        Route("/queue/{ticket}", pages.place),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host), www_redirect=False)
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard), Middleware(Calm), hosts],
        exception_handlers={UserError: _refused, LeftQueue: _left, ClientDisconnect: _left},
    )
    app.state.pages = pages
    return app
