"""The web server of the test. Only the server knows which picture of a pair is the fake."""

from __future__ import annotations

import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from common.turing.pictures import DISPLAY_SIZE, Gallery
from common.turing.report import MODEL_HEADS, answers_csv, report_values
from common.turing.results import Rules, summarize, trial_verdicts
from common.turing.store import Answer, Refused, Store
from common.turing.trials import EXPOSURE_MS, SIDES, Study
from common.utils.web import MAX_BODY, client_left, form_fields, guards, json_object, same_secret

STATIC = Path(__file__).parent / "web" / "static"
LAYOUTS = ("row", "column", "small")
MAX_MS = 3_600_000.0
_SESSION, _REPORT = "session", "report"


def templates() -> Environment:
    """The templates of the pages. Values are escaped, and a missing value is an error."""
    return Environment(loader=PackageLoader("common.turing.web"), autoescape=True, undefined=StrictUndefined)


def study_values(study: Study) -> dict:
    """Template variables shared by all pages of a study."""
    counted = study.test - study.vigilance_pairs
    return {
        "chance": round(98 / counted**0.5),  # 1.96 standard deviations of the share at chance, in points
        "static": "/static", "practice": study.practice, "test": study.test, "size": study.size, "shown": DISPLAY_SIZE,
        "seconds": EXPOSURE_MS / 1000, "minutes": max(1, round((study.practice + study.test) * 3.5 / 60)),
    }  # fmt: skip


def read_answer(given: dict) -> Answer:
    """Parse an answer that a page sent. Raises ValueError with the wrong field."""
    if not (isinstance(given.get("choice"), str) and given["choice"] in SIDES):
        raise ValueError("choice must be left or right")
    if not (isinstance(given.get("layout"), str) and given["layout"] in LAYOUTS):
        raise ValueError("layout must be row, column or small")
    times = []
    for name in ("exposure_ms", "response_ms"):
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} must be a number")
        if not (0 <= value <= MAX_MS) or not math.isfinite(value):
            raise ValueError(f"{name} must be between 0 and {MAX_MS:g}")
        times.append(float(value))
    return Answer(given["choice"], *times, given["layout"])


def _pair_of(given: dict) -> str:
    pair = given.get("pair")
    if not isinstance(pair, str) or len(pair) > 64 or not pair.isascii():
        raise HTTPException(400, "pair must be the name of a pair")
    return pair


def _secret(request: Request) -> str:
    return request.cookies.get(_SESSION, "")[:200]


class Endpoints:
    """The endpoints of the server. Functions that access the disk run in a thread pool."""

    def __init__(self, store: Store, gallery: Gallery, report_token: str) -> None:
        self.store, self.gallery, self.report_token = store, gallery, report_token
        self.templates = templates()
        self.values = study_values(store.study)

    def _html(self, name: str, status: int = 200, **values: object) -> HTMLResponse:
        return HTMLResponse(self.templates.get_template(name).render(**self.values, **values), status)

    async def welcome(self, request: Request) -> Response:
        known = await run_in_threadpool(self.store.has_session, _secret(request))
        return self._html("welcome.html", known=known, missing=False)

    async def begin(self, request: Request) -> Response:
        response = RedirectResponse("/test", 303)
        if await run_in_threadpool(self.store.has_session, _secret(request)):
            return response
        if (await form_fields(request)).get("consent") != "yes":
            return self._html("welcome.html", 400, known=False, missing=True)
        secret = await run_in_threadpool(self.store.begin)
        secure = request.url.scheme == "https"
        # lax, not strict: the cookie must also be sent when somebody follows a link to the study
        response.set_cookie(
            _SESSION, secret, max_age=30 * 24 * 3600, httponly=True, samesite="lax", secure=secure, path="/"
        )
        return response

    async def test(self, request: Request) -> Response:
        if not await run_in_threadpool(self.store.has_session, _secret(request)):
            return RedirectResponse("/", 303)
        return self._html("test.html")

    async def resume(self, request: Request) -> Response:
        return JSONResponse((await run_in_threadpool(self.store.resume, _secret(request)))._asdict())

    async def picture(self, request: Request) -> Response:
        pair = request.path_params["pair"]
        model, trial = await run_in_threadpool(self.store.picture_of, _secret(request), pair)
        return Response(self.gallery.pair(model, trial), media_type="image/jpeg")

    async def shown(self, request: Request) -> Response:
        pair = _pair_of(await json_object(request))
        await run_in_threadpool(self.store.shown, _secret(request), pair)
        return Response(status_code=204)

    async def answer(self, request: Request) -> Response:
        given = await json_object(request)
        pair = _pair_of(given)
        try:
            answer = read_answer(given)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        fake, state = await run_in_threadpool(self.store.answer, _secret(request), pair, answer)
        return JSONResponse({"fake": fake, "state": state._asdict()})

    async def result(self, request: Request) -> Response:
        secret = _secret(request)
        if not await run_in_threadpool(self.store.has_session, secret):
            return RedirectResponse("/", 303)
        if (await run_in_threadpool(self.store.state, secret)).stage != "end":
            return RedirectResponse("/test", 303)
        fooled, answered = await run_in_threadpool(self.store.outcome, secret)
        return self._html("result.html", fooled=fooled, answered=answered)

    def _may_read(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.cookies.get(_REPORT, "")
        return same_secret(given, self.report_token)

    async def report(self, request: Request) -> Response:
        if request.method == "POST":
            given = (await form_fields(request)).get("token", "")
            if not same_secret(given, self.report_token):
                return self._html("token.html", 403, wrong=True)
            response = RedirectResponse("/report", 303)
            secure = request.url.scheme == "https"
            response.set_cookie(_REPORT, given, httponly=True, samesite="strict", secure=secure, path="/report")
            return response
        if not self._may_read(request):
            return self._html("token.html", 403, wrong=False)
        return self._html("report.html", heads=MODEL_HEADS, **await run_in_threadpool(self._report))

    def _report(self) -> dict:
        return report_values(summarize(self.store.records(), self.store.study))

    async def answers(self, request: Request) -> Response:
        if not self._may_read(request):
            return self._html("token.html", 403, wrong=False)
        text = await run_in_threadpool(self._csv)
        return PlainTextResponse(text, media_type="text/csv", headers={"content-disposition": "attachment"})

    def _csv(self) -> str:
        records = self.store.records()
        return answers_csv(records, trial_verdicts(records, self.store.study, Rules()), self.store.study)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return PlainTextResponse(str(error), error.status)


def create_app(store: Store, gallery: Gallery, report_token: str, host: str = "127.0.0.1") -> Starlette:
    """The test as a Starlette application.

    report_token: secret that gives access to the report. host: the address that the server will be bound to.
    """
    endpoints = Endpoints(store, gallery, report_token)
    routes = [
        Route("/", endpoints.welcome),
        Route("/begin", endpoints.begin, methods=["POST"]),
        Route("/test", endpoints.test),
        Route("/resume", endpoints.resume, methods=["POST"]),
        Route("/pair/{pair}", endpoints.picture),
        Route("/shown", endpoints.shown, methods=["POST"]),
        Route("/answer", endpoints.answer, methods=["POST"]),
        Route("/result", endpoints.result),
        Route("/report", endpoints.report, methods=["GET", "POST"]),
        Route("/report/answers.csv", endpoints.answers),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(
        routes=routes,
        # Starlette's own max_body_size would answer outside the guards, without their headers
        middleware=[*guards(host), Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)],
        exception_handlers={Refused: _refused, ClientDisconnect: client_left},
    )
