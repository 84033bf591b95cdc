"""The HTTP application: its parts put together, what runs beside the requests, and what every error becomes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from integrations.accounts import Accounts
from ledger.database import Database, open_database
from ledger.intake import Intake
from ledger.keys import KeyLedger
from ledger.tags import TagLedger
from ledger.upgrade import upgrade
from producers.hooks import Hooks, open_doors
from producers.hooks import router as hook_router
from producers.http.accepting import Acceptor
from producers.http.access import Doorkeeper
from producers.http.contract import describe
from producers.http.figures import Figures
from producers.http.guard import Guard
from producers.http.load import Tide, Watermarks
from producers.http.problems import Problem, language_of
from producers.http.reading import Reader
from producers.http.tasks import Tasks, router
from producers.http.waiting import LedgerWaiters, RedisWaiters, Waiters
from producers.publisher import Publisher
from producers.relay import Broker
from tagging import __version__
from tagging.errors import StoreUnavailable
from tagging.labels import LabelBook
from tagging.messages import Decoder
from tagging.settings import Loaded, Settings
from tagging.urls import REDIS_SCHEMES

log = structlog.get_logger()

_OF_STATUS: Final = {404: "not-found", 405: "method-not-allowed", 408: "too-slow", 413: "too-large"}
_RETRY_S: Final = "5"


def make_app(loaded: Loaded, *, broker: Broker | None = None, waiters: Waiters | None = None) -> FastAPI:
    """The application of these settings; connects when it is started.

    Args:
        loaded: The settings and the folder of the label sets.
        broker: Takes what is accepted; a ``Publisher`` by default.
        waiters: Say when tasks end; by default as the results backend can.

    Raises:
        SettingsError: A label set or an account is wrong, or the ledger's URL.
        StoreUnavailable: The ledger cannot be opened.
    """
    settings = loaded.settings
    if newer := upgrade(settings.ledger.url):
        log.warning("ledger.newer", schema=newer)
    database = open_database(settings.ledger.url)
    intake = Intake(database)
    waiters = waiters or _waiters(settings, intake)
    marks = Watermarks(unfinished=settings.http.max_unfinished, age_s=settings.http.max_age_s)
    tide = Tide(intake.load, marks)
    publisher = broker or Publisher(settings)
    acceptor = Acceptor(intake=intake, broker=publisher, settings=settings.intake)
    doorkeeper = Doorkeeper(KeyLedger(database) if settings.http.access == "keys" else None)
    tasks = Tasks(
        doorkeeper=doorkeeper,
        reader=Reader(decoder=_decoder(loaded)),
        acceptor=acceptor,
        waiters=waiters,
        tide=tide,
        intake=intake,
        tags=TagLedger(database),
        wait_s=settings.http.wait_s,
    )
    hooks = Hooks(doors=open_doors(Accounts.load(loaded.config_dir), label_sets=_label_sets(loaded)), acceptor=acceptor)
    figures = Figures(tide=tide, waiters=waiters, hooks=hooks.outcomes)
    app = FastAPI(
        title="Tagmill",
        version=__version__,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan(database, publisher, [acceptor.run, waiters.run, tide.run]),
    )
    app.include_router(router(tasks))
    app.include_router(hook_router(hooks))
    _add_health(app, tide=tide, figures=figures, doorkeeper=doorkeeper)
    _answer_errors(app)
    describe(app)
    app.add_middleware(
        Guard,
        max_body_bytes=settings.http.max_body_kb * 1024,
        receive_s=settings.http.receive_s,
        observe=figures.observe,
    )
    return app


def _waiters(settings: Settings, intake: Intake) -> Waiters:
    if urlsplit(settings.results.url).scheme in REDIS_SCHEMES:
        return RedisWaiters(settings.results.url)
    return LedgerWaiters(intake.finished_among)


def _label_sets(loaded: Loaded) -> list[str]:
    book = LabelBook.load(loaded.config_dir / "labels", max_labels=loaded.settings.labels.max_per_set)
    return [label_set.name for label_set in book]


def _decoder(loaded: Loaded) -> Decoder:
    settings = loaded.settings
    book = LabelBook.load(Path(loaded.config_dir) / "labels", max_labels=settings.labels.max_per_set)
    return Decoder(book=book, model=settings.model.name, default_template="{}", limits=settings.limits)


def _lifespan(
    database: Database, publisher: Broker, beside: list[Callable[[], Coroutine[Any, Any, None]]]
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(run()) for run in beside]
        for task in running:
            task.add_done_callback(_end_if_broken)
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if isinstance(publisher, Publisher):
                publisher.close()
            database.close()

    return lifespan


def _end_if_broken(task: "asyncio.Task[None]") -> None:
    """What runs beside the requests never ends by itself; without it they would wait for ever."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("http.broken", cause=repr(error), hint="the process ends, to be started again")
        os.kill(os.getpid(), signal.SIGTERM)


def _add_health(app: FastAPI, *, tide: Tide, figures: Figures, doorkeeper: Doorkeeper) -> None:
    @app.get("/livez", summary="Whether the process answers")
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", summary="Whether messages can be accepted")
    async def readyz() -> JSONResponse:
        ready = await tide.look()
        return JSONResponse({"ledger": "ok" if ready else "unavailable"}, status_code=200 if ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus")
    async def metrics(request: Request) -> Response:
        await doorkeeper.admit(request, "read")
        return Response(figures.page(), media_type=figures.media_type)


def _answer_errors(app: FastAPI) -> None:
    def answer(request: Request, problem: Problem) -> JSONResponse:
        return problem.response(language_of(request.headers.get("accept-language", "")))

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        return answer(request, problem)

    @app.exception_handler(StoreUnavailable)
    async def on_store(request: Request, error: StoreUnavailable) -> JSONResponse:
        log.error("http.ledger_lost", cause=str(error))
        return answer(request, Problem(kind="unavailable", headers={"Retry-After": _RETRY_S}))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        kind = _OF_STATUS.get(error.status_code, "invalid-message")
        return answer(request, Problem(kind=kind, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:  # noqa: ARG001  # its text quotes the input
        return answer(request, Problem(kind="invalid-message"))

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        log.error("http.failed", cause=type(error).__name__)
        return answer(request, Problem(kind="failed"))
