"""The live service beside Label Studio: health, metrics, ML-backend protocol, webhook receiver.

A webhook only sets a cursor in the catalogue, and the flow that waits for annotations then polls
Label Studio. Clicks go through a short queue to one model thread (engine.py); nothing here writes
labels.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client import generate_latest as render_metrics

from deployments.refine_service.backend import MODEL_VERSION, add_backend
from deployments.refine_service.engine import Engine
from deployments.refine_service.guard import BadRequest, check_login, check_token, read_json
from deployments.refine_service.metrics import Metrics
from deployments.refine_service.model import make_session_opener
from tasks.errors import is_transient_error
from tasks.live.session import LiveSession
from tasks.settings import Settings, load_settings
from tasks.workspace import open_catalogue

__all__ = ["MODEL_VERSION", "WAKE_UP", "create_app"]

logger = logging.getLogger(__name__)

WAKE_UP = "webhook"  # cursor in the catalogue that flows/pull_review.py watches


def create_app(
    settings: Settings | None = None, open_session: Callable[[], LiveSession] | None = None
) -> FastAPI:
    """Build the service.

    Args:
        settings: None = of settings file and environment.
        open_session: loads the model; None = the one of the settings.
    """
    chosen = settings or load_settings()
    metrics = Metrics()
    opener = open_session or make_session_opener(chosen)
    engine = Engine(opener, chosen.live, metrics, chosen.review.max_clicks)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.catalogue = await run_in_threadpool(open_catalogue, chosen)
        app.state.engine = engine
        engine.start()
        logger.info("service=refine started=true")
        yield
        await run_in_threadpool(engine.stop)
        logger.info("service=refine stopped=true")

    app = FastAPI(
        title="SegviGen refine service",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if chosen.live.is_open else None,
    )
    app.middleware("http")(_measure_requests(metrics))
    _add_health(app, engine)
    _add_inside_views(app, chosen, engine, metrics)
    add_backend(app, chosen, engine, metrics)
    _add_webhook(app, chosen, metrics)
    return app


def _measure_requests(metrics: Metrics) -> Callable[..., Awaitable[Response]]:
    async def measure(request: Request, call_next: Callable[..., Any]) -> Response:
        started = time.perf_counter()
        response: Response = await call_next(request)
        route = request.scope.get("route")
        # Unknown paths share one label: metrics must not grow with requests.
        path = getattr(route, "path", "unknown")
        metrics.requests.labels(path, str(response.status_code)).inc()
        metrics.seconds.labels(path).observe(time.perf_counter() - started)
        return response

    return measure


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        # Open to everybody, so it says no more than this; a model that is being loaded is healthy.
        if engine.is_down:
            return JSONResponse({"status": "DOWN"}, status_code=503)
        return JSONResponse({"status": "UP"})


def _add_inside_views(app: FastAPI, settings: Settings, engine: Engine, metrics: Metrics) -> None:
    """Add what tells about the inside: for a login, or for everybody by the setting."""

    def check(request: Request) -> None:
        if not settings.live.is_open:
            check_login(request, settings.review)

    @app.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        check(request)
        if engine.problem:
            return JSONResponse({"status": engine.problem}, status_code=503)
        try:
            counts = await run_in_threadpool(app.state.catalogue.count_assets)
        except Exception as err:  # not ready without the catalogue, for any reason
            logger.warning("service=refine ready=false error=%s", err)
            return JSONResponse({"status": "the catalogue cannot be read"}, status_code=503)
        return JSONResponse({"status": "READY", "assets": sum(counts.values())})

    @app.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        check(request)
        return Response(render_metrics(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_webhook(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    @app.post("/webhook")
    async def webhook(request: Request) -> JSONResponse:
        check_token(request, settings.review)
        action = await _get_action(request)
        metrics.webhooks.labels(action).inc()
        stamp = f"{time.time():.6f}"
        try:
            await run_in_threadpool(app.state.catalogue.raw.set_cursor, WAKE_UP, stamp)
        except Exception as err:
            if not is_transient_error(err):
                raise
            # Label Studio sends no webhook again; the next poll comes by itself.
            logger.warning("service=refine webhook=lost error=%s", err)
            return JSONResponse({"status": "the catalogue cannot be reached"}, status_code=503)
        return JSONResponse({"status": "noted"})


async def _get_action(request: Request) -> str:
    """Return one of Label Studio's known actions, or "other": no free text in a metric."""
    known = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
    try:
        action = (await read_json(request)).get("action")
    except BadRequest as err:
        if err.status == 413:
            raise
        return "other"
    return action if isinstance(action, str) and action in known else "other"
