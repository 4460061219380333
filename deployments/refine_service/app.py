"""The live service beside Label Studio: health, metrics, ML-backend protocol, webhook receiver.

A webhook is a hint only: it is written down and answered within milliseconds, and whoever waits
for answers then asks Label Studio itself. Non-interactive predictions are always empty, because
Label Studio would store them.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client import generate_latest as render_metrics

from tasks.catalogue import Catalogue
from tasks.settings import Settings, load_settings

logger = logging.getLogger(__name__)

MODEL_VERSION = "segvigen-refine"
WAKE_UP = "webhook"  # cursor in the catalogue that flows/pull_review.py watches
TOKEN_HEADERS = ("x-segvigen-token", "x-segvi-token")
# Label Studio itself makes a webhook without a header when an ML backend is added.
MAX_BODY_BYTES = 16 * 2**20


class Metrics:
    """Counters of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "segvigen_requests",
            "Requests by path and status",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "segvigen_request_seconds", "Time to answer", ["path"], registry=self.registry
        )
        self.webhooks = Counter(
            "segvigen_webhooks", "Webhooks by action", ["action"], registry=self.registry
        )


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service.

    Args:
        settings: None reads file and environment.
    """
    chosen = settings or load_settings()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.catalogue = await run_in_threadpool(
            Catalogue, chosen.catalogue.url.get_secret_value()
        )
        logger.info("service=refine started=true")
        yield
        logger.info("service=refine stopped=true")

    app = FastAPI(title="SegviGen refine service", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.middleware("http")(_measured(metrics))
    _add_health(app, metrics)
    _add_backend(app)
    _add_webhook(app, chosen, metrics)
    return app


def _measured(metrics: Metrics) -> Callable[..., Awaitable[Response]]:
    async def measure(request: Request, call_next: Callable[..., Any]) -> Response:
        started = time.perf_counter()
        answer: Response = await call_next(request)
        route = request.scope.get("route")
        # Unknown paths share one label, or anybody could fill the memory with names.
        path = getattr(route, "path", "unknown")
        metrics.requests.labels(path, str(answer.status_code)).inc()
        metrics.seconds.labels(path).observe(time.perf_counter() - started)
        return answer

    return measure


def _add_health(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        try:
            counts = await run_in_threadpool(app.state.catalogue.counts)
        except Exception as err:  # whatever keeps the catalogue away, the answer is "not ready"
            logger.warning("service=refine ready=false error=%s", err)
            return JSONResponse({"status": "catalogue does not answer"}, status_code=503)
        return JSONResponse({"status": "READY", "assets": sum(counts.values())})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(render_metrics(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_backend(app: FastAPI) -> None:
    @app.post("/setup")
    async def setup() -> dict[str, str]:
        # The body holds the project owner's token: it is neither read nor logged.
        return {"model_version": MODEL_VERSION}

    @app.post("/predict")
    async def predict() -> dict[str, Any]:
        return {"results": [], "model_version": MODEL_VERSION}


def _add_webhook(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    token = settings.review.webhook_token

    @app.post("/webhook")
    async def webhook(request: Request) -> JSONResponse:
        if token is None or not _has_token(request, token.get_secret_value()):
            return JSONResponse({"error": "wrong or missing token"}, status_code=401)
        if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
            return JSONResponse({"error": "body too large"}, status_code=413)
        action = await _action(request)
        metrics.webhooks.labels(action).inc()
        stamp = f"{time.time():.6f}"
        await run_in_threadpool(app.state.catalogue.raw.set_cursor, WAKE_UP, stamp)
        return JSONResponse({"status": "noted"})


def _has_token(request: Request, token: str) -> bool:
    given = next((request.headers[name] for name in TOKEN_HEADERS if name in request.headers), "")
    return hmac.compare_digest(given.encode(), token.encode())


async def _action(request: Request) -> str:
    """One of Label Studio's few action names, or "other": never free text in a metric."""
    known = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
    try:
        body = await request.json()
    except ValueError:
        return "other"
    action = body.get("action") if isinstance(body, dict) else None
    return action if action in known else "other"
