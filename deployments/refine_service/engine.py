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
from tasks.errors import is_surroundings
from tasks.labelling.rounds import edits_of
from tasks.live.click_history import Result
from tasks.live.preview import Preview, preview_results
from tasks.live.session import LiveAsset, LiveDesk, read_said
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


Answer = dict[str, Any]


class Engine:
    """The model thread, its queue and its memory.

    Args:
        open_desk: loads the model; called in the thread.
        settings: queue, time-out, memory.
        metrics: of this process.
        max_clicks: of an annotation, as the pull limits it.
    """

    def __init__(
        self,
        open_desk: Callable[[], LiveDesk],
        settings: LiveSettings,
        metrics: Metrics,
        max_clicks: int = 100,
    ) -> None:
        self._open_desk, self._settings, self._metrics = open_desk, settings, metrics
        self._max_clicks = max_clicks
        self._desk: LiveDesk | None = None
        self._assets: OrderedDict[tuple[str, str], LiveAsset] = OrderedDict()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._pending: dict[str, Future[Answer]] = {}
        self._queue: deque[tuple[Job, Future[Answer], float]] = deque()
        self._hints: deque[str] = deque(maxlen=MAX_HINTS)
        self._wake = threading.Condition()
        self._is_closing = False
        self._problem, self._is_down = "the model is being loaded", False
        self._mean_s = 1.0
        self._thread = threading.Thread(target=self._work, name="refine", daemon=True)

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

    def submit(self, job: Job) -> Future[Answer]:
        """Queue a request. Reads the catalogue: not to be called in an event loop.

        Raises:
            Refused: not ready, stopping, or the queue is full.
            UnknownTask: no such task.
            TaskClosed: its round is over, or has another proposal.
        """
        self._check_ready()
        job = replace(job, proposal=self._present(job))
        digest = job.digest
        with self._wake:
            if digest in self._answers:
                self._metrics.cache_hits.inc()
                self._answers.move_to_end(digest)
                done: Future[Answer] = Future()
                done.set_result(self._answers[digest])
                return done
            if digest in self._pending:
                self._metrics.cache_hits.inc()
                return self._pending[digest]
            self._check_ready()
            if len(self._queue) >= self._settings.max_waiting:
                wait_s = max(1, round(self._mean_s * len(self._queue)))
                told = f"{len(self._queue)} requests are waiting; click again in {wait_s} s"
                raise Refused(told, "queue_full", wait_s)
            future: Future[Answer] = Future()
            self._pending[digest] = future
            self._queue.append((job, future, time.perf_counter()))
            self._metrics.waiting.set(len(self._queue))
            self._wake.notify()
        return future

    def _check_ready(self) -> None:
        if self.problem or self._desk is None:
            raise Refused(f"{self.problem}; click again in a few seconds", "not_ready", 5)

    def _present(self, job: Job) -> str:
        """Return the sha256 of the proposal that an open task shows."""
        assert self._desk is not None
        try:
            return self._desk.proposal(job.key, job.proposal).sha256
        except Exception as err:
            raise _told(err, job) from err

    def _opened(self) -> LiveDesk | None:
        """Load model and stores, retrying; None when the service stops before that."""
        while not self._is_closing:
            try:
                desk = self._open_desk()
            except Exception as err:
                log.exception("service=refine ready=false again_s=%g", RETRY_S)
                with self._wake:
                    told = f"the model cannot be loaded: {err}; retried every {RETRY_S:g} s"
                    self._problem, self._is_down = told, True
                    self._wake.wait_for(lambda: self._is_closing, RETRY_S)
            else:
                with self._wake:
                    self._desk, self._problem, self._is_down = desk, "", False
                log.info("service=refine ready=true")
                return desk
        return None

    def _work(self) -> None:
        desk = self._opened()
        if desk is None:
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
                self._warm(desk, key)
            else:
                self._answer(desk, *task)

    def _warm(self, desk: LiveDesk, key: str) -> None:
        try:
            self._asset(desk, key)
        except Exception as err:  # only a preparation: a click reports it to the reviewer
            log.warning("service=refine task=%s warm=false error=%s", key[:24], err)

    def _answer(self, desk: LiveDesk, job: Job, future: Future[Answer], asked: float) -> None:
        begin = time.perf_counter()
        if begin - asked > self._settings.timeout_s:  # its request has timed out
            self._finish(job, future, Refused("it took too long; click again", "timeout"))
            return
        try:
            answer: Answer | Exception = self._refine(desk, job)
        except Exception as err:
            answer = _told(err, job)
        seconds = time.perf_counter() - begin
        self._mean_s = 0.8 * self._mean_s + 0.2 * seconds
        self._metrics.refine_seconds.observe(seconds)
        self._finish(job, future, answer)

    def _finish(self, job: Job, future: Future[Answer], answer: Answer | Exception) -> None:
        with self._wake:
            self._pending.pop(job.digest, None)
            if not isinstance(answer, Exception):
                self._answers[job.digest] = answer
                while len(self._answers) > self._settings.max_answers:
                    self._answers.popitem(last=False)
        if future.set_running_or_notify_cancel():
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _refine(self, desk: LiveDesk, job: Job) -> Answer:
        asset = self._asset(desk, job.key, job.proposal)
        said = read_said(asset, job.clicks, job.lines, self._max_clicks)
        sent = [click for click in said.clicks if click.result_id in job.sent]
        if not sent:
            return {"result": [], "score": 0.0}
        refined = desk.refine(asset, said)
        part = desk.part_of(refined, sent[-1])
        preview = Preview(
            shown=asset.shown.face_labels,
            refined=refined,
            part=part,
            clicks=sent,
            merges=edits_of(said.verbs).merges,
            request=job.digest,
        )
        results = preview_results(asset.buffers, preview)
        counts = len(said.clicks), len(said.verbs)
        log.info("service=refine task=%s clicks=%d verbs=%d part=%d", job.key[:24], *counts, part)
        score = results[0]["score"] if results else 0.0
        return {"result": results, "score": score}

    def _asset(self, desk: LiveDesk, key: str, shown: str = "") -> LiveAsset:
        # The round may have changed since.
        place = key, desk.proposal(key, shown).sha256
        found = self._assets.get(place)
        if found is None:
            self._metrics.loads.inc()
            for old in [held for held in self._assets if held[0] == key]:
                del self._assets[old]  # of an older proposal
            while len(self._assets) >= self._settings.max_assets:
                self._assets.popitem(last=False)  # before loading, to free its memory
            found = self._assets[place] = desk.load(*place)
        self._assets.move_to_end(place)
        return found


def _told(err: Exception, job: Job) -> Exception:
    """Return the error for the reviewer: infrastructure errors are worth another click."""
    if is_surroundings(err):
        log.warning("service=refine task=%s error=%r", job.key[:24], err)
        return Refused("store or catalogue cannot be reached; click again soon", "store", 5)
    if not isinstance(err, SegvigenError):
        log.error("service=refine task=%s failed", job.key[:24], exc_info=err)
        return LiveFailed(f"the model failed on this task: {type(err).__name__}; submit as usual")
    return err
