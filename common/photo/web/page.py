"""The web page on which pictures are uploaded, colorized, edited and downloaded. Only films are stored on disk."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TypeVar
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from common.color.guided_upsampling import WORKING_SIDE
from common.imaging.limited import Decoder, LargePicture
from common.photo.web import session as sessions
from common.photo.web.clips import Clip, Clips, Coloring, TooManyClips
from common.photo.web.jobs import ClientLeft, JobQueue, QueueFull
from common.photo.web.uploads import (
    EXPIRY_SECONDS,
    Incoming,
    MemoryFull,
    Upload,
    UploadNotFound,
    Uploads,
    overhead_bytes,
)
from common.utils.errors import UserError
from common.utils.web import MAX_BODY, client_left, guards, json_object

STATIC = Path(__file__).parent / "static"
_COOKIE = "colorize"
_UPLOADS_IN_MEMORY = 8  # of the largest size, by default
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Limits of the page."""

    max_upload: int = 50_000_000  # bytes of a file
    max_pixels: int = 40_000_000  # of a picture
    memory: int | None = None  # bytes of all uploads together; None: eight of the largest size
    expiry_seconds: float = EXPIRY_SECONDS  # after its last use, an upload is removed
    max_jobs: int = 128  # in a queue


class Endpoints:
    """The endpoints. Slow work runs in three threads: one opens uploads, one renders, one works on large pictures."""

    def __init__(
        self, models: Sequence[sessions.Model], limits: Limits, decoder: Decoder, coloring: Coloring | None
    ) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        overhead = self._overhead(sessions.PREVIEW_SIDE**2, WORKING_SIDE**2)
        memory = limits.memory or _UPLOADS_IN_MEMORY * (limits.max_upload + overhead)
        self.uploads = Uploads(memory, limits.expiry_seconds)
        self.clips = None if coloring is None else Clips(coloring, limits.expiry_seconds)
        self.decoder = decoder
        self.opening, self.jobs, self.large_jobs = (JobQueue(limits.max_jobs) for _ in range(3))
        self.expiry_timer: asyncio.TimerHandle | None = None
        loader = PackageLoader("common.photo.web")
        self.templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)

    async def page(self, request: Request) -> Response:
        """The page, with the cookie that identifies the owner of uploads."""
        films = None if self.clips is None else self.clips.coloring
        limits = {"bytes": self.limits.max_upload, "hints": sessions.MAX_HINTS, "versions": sessions.VERSIONS}
        values = {
            "models": [{"name": model.name, "description": model.description} for model in self.models.values()],
            "limits": limits | {"films": films.suffixes if films else []},
            "film_terms": films.terms if films else "",
            "megabytes": f"{self.limits.max_upload / 1e6:g}",
            "megapixels": f"{self.limits.max_pixels / 1e6:g}",
            "minutes": f"{max(1, round(self.limits.expiry_seconds / 60))}",
        }
        response = HTMLResponse(self.templates.get_template("page.html").render(values))
        if not _owner(request):
            secure = request.url.scheme == "https"
            response.set_cookie(
                _COOKIE, secrets.token_urlsafe(24), httponly=True, samesite="strict", secure=secure, path="/"
            )
        return response

    async def upload(self, request: Request) -> Response:
        """Open the file in the request's body. The response contains the picture's properties."""
        owner, name = _required_owner(request), _file_name(request.headers.get("x-name", ""))
        incoming = self.uploads.begin(owner, asyncio.current_task().cancel)
        try:
            data = await self._receive(request, name, incoming)
            self.uploads.received(incoming)
            if not data:
                raise UserError(f"{name} is empty (0 bytes): get a complete copy")
            pixels, device = self.limits.max_pixels, next(iter(self.models.values())).device
            session = await self._run_decoding(
                self.opening,
                request,
                owner,
                lambda decode: sessions.open_session(data, name, pixels, device, decode),
            )
            self.uploads.reserve(incoming, self._overhead(session.L.numel(), session.working.numel()))
        except BaseException:
            self.uploads.end(incoming)
            raise
        upload = self.uploads.add(incoming, data, session)
        self._remove_expired()
        return JSONResponse({"id": upload.id, **session.describe()}, 201)

    def _overhead(self, preview_pixels: int, working_pixels: int) -> int:
        return overhead_bytes(preview_pixels, working_pixels, [model.config.size for model in self.models.values()])

    async def _receive(self, request: Request, name: str, incoming: Incoming) -> bytes:
        """The body. Raises HTTPException 413 as soon as its declared or received size is too large, and 408 if it comes
        too slowly.

        Memory is reserved for what has arrived and not for what was declared: a client can declare much and send
        nothing.
        """
        limit, file = self.limits.max_upload, io.BytesIO()
        too_large = HTTPException(413, f"{name} is larger than {limit / 1e6:g} megabytes: make it smaller first")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise too_large
        stream = request.stream()
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream, None), incoming.deadline - self.uploads.clock())
            except asyncio.TimeoutError:
                raise HTTPException(408, f"the upload of {name} stopped: send it again") from None
            except asyncio.CancelledError:
                if not incoming.dropped:
                    raise
            if incoming.dropped:
                raise MemoryFull(
                    f"the memory for pictures is full, and the upload of {name} was slow: try again in a few minutes"
                )
            if chunk is None:
                return file.getvalue()
            if file.tell() + len(chunk) > limit:
                raise too_large
            self.uploads.receive(incoming, len(chunk))
            file.write(chunk)

    async def before(self, request: Request) -> Response:
        """Preview of the uploaded picture, a JPEG."""
        return Response(self._upload(request).session.before, media_type="image/jpeg")

    async def paint(self, request: Request) -> Response:
        """Preview of the colorization, a JPEG. The header `x-note` reports a lack of memory."""
        upload, model, look, _ = await self._read(request)
        data, note = await self._run(
            self.jobs, request, upload.owner, lambda: sessions.render_preview(upload.session, model, look)
        )
        return Response(data, media_type="image/jpeg", headers={"x-note": quote(note)} if note else None)

    async def result(self, request: Request) -> Response:
        """The colorization at full size, as a file to download."""
        upload, model, look, body = await self._read(request)
        form = body.get("format", upload.session.form)
        if not (isinstance(form, str) and form in {upload.session.form, "PNG"}):
            raise UserError("format is that of the uploaded picture, or PNG")
        data, name = await self._run_decoding(
            self.jobs,
            request,
            upload.owner,
            lambda decode: sessions.render_file(upload.data, upload.session, model, look, form, decode),
        )
        return Response(data, media_type=sessions.MEDIA_TYPES[form], headers=_attachment(name))

    async def remove(self, request: Request) -> Response:
        """Remove an upload. The page calls this when its tab is closed."""
        self.uploads.remove(_owner(request), request.path_params["id"])
        return Response(status_code=204)

    async def position(self, request: Request) -> Response:
        """Position of one of the client's jobs in the queue, and how many jobs before it belong to others."""
        queues = (self.opening, self.jobs, self.large_jobs)
        found = (jobs.position(_owner(request), request.path_params["ticket"]) for jobs in queues)
        position, others = next(filter(None, found), (None, None))
        return JSONResponse({"position": position, "others": others})

    def _upload(self, request: Request) -> Upload:
        return self.uploads.get(_required_owner(request), request.path_params["id"])

    async def palette(self, request: Request) -> Response:
        """The likely colors of a place, as JSON."""
        upload, model, _, body = await self._read(request)
        work = partial(sessions.likely_colors_at, upload.session, model, body)
        return JSONResponse({"colors": await self._run(self.jobs, request, upload.owner, work)})

    async def _read(self, request: Request) -> tuple[Upload, sessions.Model, sessions.Look, dict]:
        """Upload, model and look of a request, and its JSON body."""
        upload, body = self._upload(request), await json_object(request)
        return upload, self._model(body.get("model")), sessions.read_look(body, upload.session), body

    def _model(self, name: object) -> sessions.Model:
        if not isinstance(name, str) or name not in self.models:
            raise UserError(f"model is one of {', '.join(self.models)}")
        return self.models[name]

    async def upload_clip(self, request: Request) -> Response:
        """Take the film in the request's body, and color it when it is its turn."""
        owner, name = _required_owner(request), _file_name(request.headers.get("x-name", ""))
        if self.clips is None:
            raise UserError(f"{name} is a film, and this server takes no films: choose a picture")
        model = self._model(unquote(request.headers.get("x-model", "")))
        incoming = self.uploads.begin(owner, asyncio.current_task().cancel)
        try:
            data = await self._receive(request, name, incoming)
        finally:
            self.uploads.end(incoming)
        if not data:
            raise UserError(f"{name} is empty (0 bytes): get a complete copy")
        clip = self.clips.add(owner, name, model.argument, data)
        return JSONResponse({"id": clip.id}, 201)

    def _clip(self, request: Request) -> Clip:
        if self.clips is None:
            raise HTTPException(404, "this server takes no films: choose a picture")
        return self.clips.get(_required_owner(request), request.path_params["id"])

    async def clip(self, request: Request) -> Response:
        """State of a clip, as JSON."""
        return JSONResponse(self.clips.describe(self._clip(request)))

    async def film(self, request: Request) -> Response:
        """The colored film, as a file to download."""
        clip = self._clip(request)
        if not clip.complete:
            raise HTTPException(404, f"{clip.name} is not colored yet: wait until it is")
        headers = _attachment(f"{PurePath(clip.name).stem}.color.mp4")
        return FileResponse(clip.film, media_type="video/mp4", headers=headers)

    async def remove_clip(self, request: Request) -> Response:
        """Remove a clip, and stop its coloring. The page calls this when its tab is closed."""
        if self.clips is not None:
            self.clips.remove(_owner(request), request.path_params["id"])
        return Response(status_code=204)

    async def _run(self, jobs: JobQueue, request: Request, owner: str, work: Callable[[], T]) -> T:
        return await jobs.run(request, owner, request.headers.get("x-ticket", "")[:64], work)

    async def _run_decoding(
        self, jobs: JobQueue, request: Request, owner: str, work: Callable[[sessions.Decode], T]
    ) -> T:
        """Run a job that decodes a file: among `large_jobs` instead if the file is large or takes long."""
        try:
            return await self._run(jobs, request, owner, lambda: work(self.decoder.open))
        except LargePicture:
            decode = partial(self.decoder.open, large=True)
            return await self._run(self.large_jobs, request, owner, lambda: work(decode))

    def _remove_expired(self) -> None:
        """Remove expired uploads now, and again when the next one expires."""
        if self.expiry_timer is not None:
            self.expiry_timer.cancel()
        wait = self.uploads.remove_expired()
        loop = asyncio.get_running_loop()
        self.expiry_timer = None if wait is None else loop.call_later(wait + 0.01, self._remove_expired)


def _owner(request: Request) -> str:
    return request.cookies.get(_COOKIE, "")[:64]


def _required_owner(request: Request) -> str:
    owner = _owner(request)
    if len(owner) < 16:
        raise HTTPException(403, "this page needs its cookie: allow cookies, and load it again")
    return owner


def _file_name(quoted: str) -> str:
    """File name for messages and downloads: the last part of a path, without characters that are not printable."""
    name = unquote(quoted[:1000], errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter for letter in name if letter.isprintable() and letter not in '"<>|:*?')[-120:]
    return name.strip(". ") or "picture"


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


_STATUS = {TooManyClips: 503, UploadNotFound: 404, MemoryFull: 503, QueueFull: 503, sessions.NoMemory: 503}


async def _user_error(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), _STATUS.get(type(error), 422))


async def _left_queue(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # for the log only


def create_app(
    models: Sequence[sessions.Model],
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    decoder: Decoder | None = None,
    coloring: Coloring | None = None,
) -> Starlette:
    """Create the web application. host: the address that the server will be bound to. coloring: None takes no films."""
    endpoints = Endpoints(models, limits or Limits(), decoder or Decoder(), coloring)
    routes = [
        Route("/", endpoints.page),
        Route("/pictures", endpoints.upload, methods=["POST"]),
        Route("/pictures/{id}", endpoints.remove, methods=["DELETE"]),
        Route("/pictures/{id}/before", endpoints.before),
        Route("/pictures/{id}/paint", endpoints.paint, methods=["POST"], max_body_size=MAX_BODY),
        Route("/pictures/{id}/palette", endpoints.palette, methods=["POST"], max_body_size=MAX_BODY),
        Route("/pictures/{id}/result", endpoints.result, methods=["POST"], max_body_size=MAX_BODY),
        Route("/clips", endpoints.upload_clip, methods=["POST"]),
        Route("/clips/{id}", endpoints.clip),
        Route("/clips/{id}", endpoints.remove_clip, methods=["DELETE"]),
        Route("/clips/{id}/film", endpoints.film),
        Route("/queue/{ticket}", endpoints.position),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes,
        middleware=guards(host),
        exception_handlers={UserError: _user_error, ClientLeft: _left_queue, ClientDisconnect: client_left},
    )
    app.state.endpoints = endpoints
    return app
