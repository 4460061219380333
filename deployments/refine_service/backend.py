"""Label Studio's ML-backend protocol: /setup and /predict.

Only interactive requests get a result. The result of any other request would be stored as a
prediction, so it is empty; such a request shows that a task was opened, and its asset is prepared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from deployments.refine_service.engine import Engine, Job, PredictionResponse, Refused
from deployments.refine_service.guard import BadRequest, check_login, read_json
from deployments.refine_service.metrics import Metrics
from segvigen_model.errors import AssetRejected, SegvigenError
from tasks.live.click_history import (
    ClickHistory,
    read_drafts,
    select_command_lines,
    select_keypoints,
)
from tasks.live.session import TaskClosed, UnknownTask, UnusableClicks
from tasks.review.inbox import PROPOSAL_SHA256
from tasks.settings import Settings

MODEL_VERSION = "segvigen-refine"
MAX_CLICKS_SENT = 100
STATUS: Mapping[type[Exception], int] = {
    UnknownTask: 404,
    TaskClosed: 409,
    UnusableClicks: 422,
    AssetRejected: 422,
}


def add_backend(app: FastAPI, settings: Settings, engine: Engine, metrics: Metrics) -> None:
    """Add the two routes."""
    # More than are used, because unusable ones do not count.
    history = ClickHistory(max_clicks=settings.review.max_clicks + MAX_CLICKS_SENT)

    @app.post("/setup")
    async def setup(request: Request) -> dict[str, str]:
        # The body holds the project owner's token: it is neither read nor logged.
        check_login(request, settings.review)
        return {"model_version": MODEL_VERSION}

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        check_login(request, settings.review)
        body = await read_json(request)
        context = _get_context(body)
        task = _get_task(body)
        if context is None:
            if task is not None:
                engine.hint(_get_key(task))
            return JSONResponse({"results": [], "model_version": MODEL_VERSION})
        if task is None:
            raise BadRequest(400, "no task in the request; send exactly one")
        job = _make_job(history, task, _get_sent_clicks(context))
        response = _make_empty_response()
        if job.sent:
            response = await _get_response(engine, job, settings.live.timeout_s)
        return JSONResponse({"results": [{**response, "model_version": MODEL_VERSION}]})

    @app.exception_handler(SegvigenError)
    async def refuse(request: Request, err: SegvigenError) -> JSONResponse:
        status, headers, reason = _make_refusal(err)
        if request.url.path == "/predict":
            metrics.refusals.labels(reason).inc()
        return JSONResponse({"error": str(err)[:500]}, status_code=status, headers=headers)


def _make_job(
    history: ClickHistory, task: Mapping[str, Any], sent: tuple[Mapping[str, Any], ...]
) -> Job:
    """The request with everything that counts besides: earlier clicks, command lines."""
    drafts, key = read_drafts(task), _get_key(task)
    clicks = tuple(history.update_clicks(key, sent, drafts))
    ids = frozenset(row["id"] for row in sent)
    return Job(key, clicks, ids, select_command_lines(sent, drafts), _get_shown_proposal(task))


async def _get_response(engine: Engine, job: Job, timeout_s: float) -> PredictionResponse:
    future: Future[PredictionResponse] = await run_in_threadpool(engine.submit, job)
    # Shielded: other requests may wait for the same result, and a later one finds it in memory.
    waiting = asyncio.shield(asyncio.wrap_future(future))
    try:
        return await asyncio.wait_for(waiting, timeout_s)
    except TimeoutError as err:
        message = f"no result within {timeout_s:g} s; click again, it may be ready then"
        raise Refused(message, "timeout", 2) from err


def _make_empty_response() -> PredictionResponse:
    return {"result": [], "score": 0.0}


def _make_refusal(err: SegvigenError) -> tuple[int, dict[str, str] | None, str]:
    if isinstance(err, BadRequest):
        challenge = {"WWW-Authenticate": "Basic"} if err.status == 401 else None
        return err.status, challenge, "bad_request" if err.status != 401 else "login"
    if isinstance(err, Refused):
        return 503, {"Retry-After": str(err.retry_after_s)}, err.reason
    status = next((code for kind, code in STATUS.items() if isinstance(err, kind)), 422)
    return status, None, type(err).__name__


def _get_context(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    params = body.get("params")
    context = params.get("context") if isinstance(params, Mapping) else None
    if context is not None and not isinstance(context, Mapping):
        raise BadRequest(400, f"params.context is {type(context).__name__}; send an object or null")
    return context or None


def _get_task(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or len(tasks) != 1:
        return None
    if not isinstance(tasks[0], Mapping):
        raise BadRequest(400, f"the task is {type(tasks[0]).__name__}; send an object")
    return tasks[0]


def _get_key(task: Mapping[str, Any]) -> str:
    data = task.get("data")
    key = data.get("key") if isinstance(data, Mapping) else None
    if not isinstance(key, str):
        raise UnknownTask(
            "the task has no data.key; only tasks made by the pipeline can be refined"
        )
    return key[:200]


def _get_shown_proposal(task: Mapping[str, Any]) -> str:
    """Return the sha256 of the proposal that a task shows; "" in tasks of older versions."""
    shown = task["data"].get(PROPOSAL_SHA256)
    return shown if isinstance(shown, str) else ""


def _get_sent_clicks(context: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    results = context.get("result")
    if not isinstance(results, list):
        raise BadRequest(400, "params.context.result is missing; send a list of keypoints")
    sent = select_keypoints(results)
    if len(sent) < len(results):
        result = f"{len(results) - len(sent)} of {len(results)} results are no clicks"
        raise BadRequest(400, f"{result}; send keypoints with id and label")
    if len(sent) > MAX_CLICKS_SENT:
        raise BadRequest(400, f"{len(sent)} clicks > {MAX_CLICKS_SENT}; delete some")
    return sent
