"""One model thread with a short queue: predicts the effect of clicks on assets kept in memory.

The same clicks on the same proposal give the same result, from memory if possible, and equal
requests in flight are computed once. A full queue or a stop refuses at once; a running request is
finished. A model or store that cannot be loaded is retried; meanwhile the service is down.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from deployments.refine_service.metrics import Metrics
from segvigen_model.errors import SegvigenError
from tasks.errors import is_transient_error
from tasks.labelling.rounds import collect_edits
from tasks.live.click_history import Result
from tasks.live.preview import Preview, make_preview_results
from tasks.live.session import LiveAsset, LiveSession, parse_instructions
from tasks.settings import LiveSettings
from tasks.storage.canonical import canonical_json

log = logging.getLogger(__name__)

MAX_HINTS = 4  # tasks opened lately, which may be clicked soon
RETRY_S = 15.0  # until a model or store that could not be loaded is retried


class Refused(SegvigenError):
    """A request that the service cannot take now.

    Args:
        message: why, and what to do.
        reason: one word for the metrics.
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class LiveFailed(SegvigenError):
    """The model failed on a request; the clicks themselves still count."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request: the task and all its clicks and command lines.

    Attributes:
        key: "<asset id>:<round>".
        clicks: raw results, oldest first.
        sent: ids of the clicks of this request.
        lines: raw results that hold command lines.
        proposal: sha256 of the proposal shown; "" = the present one.
    """

    key: str
    clicks: tuple[Result, ...]
    sent: frozenset[str]
    lines: tuple[Result, ...] = ()
    proposal: str = ""

    @property
    def digest(self) -> str:
        """Key of the result."""
        parts = [self.key, self.proposal, self.clicks, sorted(self.sent), self.lines]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


PredictionResponse = dict[str, Any]


class Engine:
    """The model thread, its queue and its memory.

    Args:
        open_session: loads the model; called in the thread.
        settings: queue, time-out, memory.
        metrics: of this process.
        max_clicks: of an annotation, as the pull limits it.
    """

    def __init__(
        self,
        open_session: Callable[[], LiveSession],
        settings: LiveSettings,
        metrics: Metrics,
        max_clicks: int = 100,
    ) -> None:
        self._open_session, self._settings, self._metrics = open_session, settings, metrics
        self._max_clicks = max_clicks
        self._session: LiveSession | None = None
        self._assets: OrderedDict[tuple[str, str], LiveAsset] = OrderedDict()
        self._responses: OrderedDict[str, PredictionResponse] = OrderedDict()
        self._pending: dict[str, Future[PredictionResponse]] = {}
        self._queue: deque[tuple[Job, Future[PredictionResponse], float]] = deque()
        self._hints: deque[str] = deque(maxlen=MAX_HINTS)
        self._wake = threading.Condition()
        self._is_closing = False
        self._problem, self._is_down = "the model is being loaded", False
        self._mean_s = 1.0
        self._thread = threading.Thread(target=self._run_queue, name="refine", daemon=True)

    def start(self) -> None:
        """Load the model in the background."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Refuse waiting requests, finish the running one."""
        with self._wake:
            self._is_closing = True
            waiting, self._queue = list(self._queue), deque()
            self._wake.notify_all()
        for job, future, _ in waiting:
            self._finish(job, future, Refused("the service is stopping; click again", "stopping"))
        self._thread.join(timeout_s)

    @property
    def problem(self) -> str:
        """Why no request is taken now; "" when ready."""
        return "the service is stopping" if self._is_closing else self._problem

    @property
    def is_down(self) -> bool:
        """True after a failed load, until one succeeds."""
        return self._is_down

    def hint(self, key: str) -> None:
        """Note that a task was opened: it is prepared when no request waits."""
        with self._wake:
            if key not in self._hints:
                self._hints.append(key)
                self._wake.notify()

    def submit(self, job: Job) -> Future[PredictionResponse]:
        """Queue a request. Reads the catalogue: not to be called in an event loop.

        Raises:
            Refused: not ready, stopping, or the queue is full.
            UnknownTask: no such task.
            TaskClosed: its round is over, or has another proposal.
        """
        self._check_ready()
        job = replace(job, proposal=self._find_current_proposal(job))
        digest = job.digest
        with self._wake:
            if digest in self._responses:
                self._metrics.cache_hits.inc()
                self._responses.move_to_end(digest)
                done: Future[PredictionResponse] = Future()
                done.set_result(self._responses[digest])
                return done
            if digest in self._pending:
                self._metrics.cache_hits.inc()
                return self._pending[digest]
            self._check_ready()
            if len(self._queue) >= self._settings.max_waiting:
                wait_s = max(1, round(self._mean_s * len(self._queue)))
                message = f"{len(self._queue)} requests are waiting; click again in {wait_s} s"
                raise Refused(message, "queue_full", wait_s)
            future: Future[PredictionResponse] = Future()
            self._pending[digest] = future
            self._queue.append((job, future, time.perf_counter()))
            self._metrics.waiting.set(len(self._queue))
            self._wake.notify()
        return future

    def _check_ready(self) -> None:
        if self.problem or self._session is None:
            raise Refused(f"{self.problem}; click again in a few seconds", "not_ready", 5)

    def _find_current_proposal(self, job: Job) -> str:
        """Return the sha256 of the proposal that an open task shows."""
        assert self._session is not None
        try:
            return self._session.get_proposal(job.key, job.proposal).sha256
        except Exception as err:
            raise _translate_error(err, job) from err

    def _load_session(self) -> LiveSession | None:
        """Load model and stores, retrying; None when the service stops before that."""
        while not self._is_closing:
            try:
                session = self._open_session()
            except Exception as err:
                log.exception("service=refine ready=false again_s=%g", RETRY_S)
                with self._wake:
                    message = f"the model cannot be loaded: {err}; retried every {RETRY_S:g} s"
                    self._problem, self._is_down = message, True
                    self._wake.wait_for(lambda: self._is_closing, RETRY_S)
            else:
                with self._wake:
                    self._session, self._problem, self._is_down = session, "", False
                log.info("service=refine ready=true")
                return session
        return None

    def _run_queue(self) -> None:
        session = self._load_session()
        if session is None:
            return
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._hints or self._is_closing)
                if self._is_closing:
                    return
                task = self._queue.popleft() if self._queue else None
                key = "" if task else self._hints.popleft()
                self._metrics.waiting.set(len(self._queue))
            if task is None:
                self._warm_up(session, key)
            else:
                self._answer_job(session, *task)

    def _warm_up(self, session: LiveSession, key: str) -> None:
        try:
            self._get_asset(session, key)
        except Exception as err:  # only a preparation: a click reports it to the reviewer
            log.warning("service=refine task=%s warm=false error=%s", key[:24], err)

    def _answer_job(
        self, session: LiveSession, job: Job, future: Future[PredictionResponse], submitted_s: float
    ) -> None:
        begin = time.perf_counter()
        if begin - submitted_s > self._settings.timeout_s:  # its request has timed out
            self._finish(job, future, Refused("it took too long; click again", "timeout"))
            return
        try:
            response: PredictionResponse | Exception = self._refine(session, job)
        except Exception as err:
            response = _translate_error(err, job)
        seconds = time.perf_counter() - begin
        self._mean_s = 0.8 * self._mean_s + 0.2 * seconds
        self._metrics.refine_seconds.observe(seconds)
        self._finish(job, future, response)

    def _finish(
        self, job: Job, future: Future[PredictionResponse], response: PredictionResponse | Exception
    ) -> None:
        with self._wake:
            self._pending.pop(job.digest, None)
            if not isinstance(response, Exception):
                self._responses[job.digest] = response
                while len(self._responses) > self._settings.max_responses:
                    self._responses.popitem(last=False)
        if future.set_running_or_notify_cancel():
            if isinstance(response, Exception):
                future.set_exception(response)
            else:
                future.set_result(response)

    def _refine(self, session: LiveSession, job: Job) -> PredictionResponse:
        asset = self._get_asset(session, job.key, job.proposal)
        parsed = parse_instructions(asset, job.clicks, job.lines, self._max_clicks)
        sent = [click for click in parsed.clicks if click.result_id in job.sent]
        if not sent:
            return {"result": [], "score": 0.0}
        refined = session.refine(asset, parsed)
        part = session.find_part(refined, sent[-1])
        preview = Preview(
            shown=asset.shown.face_labels,
            refined=refined,
            part=part,
            clicks=sent,
            merges=collect_edits(parsed.commands).merges,
            request=job.digest,
        )
        results = make_preview_results(asset.buffers, preview)
        counts = len(parsed.clicks), len(parsed.commands)
        log.info(
            "service=refine task=%s clicks=%d commands=%d part=%d", job.key[:24], *counts, part
        )
        score = results[0]["score"] if results else 0.0
        return {"result": results, "score": score}

    def _get_asset(self, session: LiveSession, key: str, shown: str = "") -> LiveAsset:
        # The round may have changed since.
        place = key, session.get_proposal(key, shown).sha256
        found = self._assets.get(place)
        if found is None:
            self._metrics.loads.inc()
            for old in [held for held in self._assets if held[0] == key]:
                del self._assets[old]  # of an older proposal
            while len(self._assets) >= self._settings.max_assets:
                self._assets.popitem(last=False)  # before loading, to free its memory
            found = self._assets[place] = session.load(*place)
        self._assets.move_to_end(place)
        return found


def _translate_error(err: Exception, job: Job) -> Exception:
    """Return the error for the reviewer: infrastructure errors are worth another click."""
    if is_transient_error(err):
        log.warning("service=refine task=%s error=%r", job.key[:24], err)
        return Refused("store or catalogue cannot be reached; click again soon", "store", 5)
    if not isinstance(err, SegvigenError):
        log.error("service=refine task=%s failed", job.key[:24], exc_info=err)
        return LiveFailed(f"the model failed on this task: {type(err).__name__}; submit as usual")
    return err
