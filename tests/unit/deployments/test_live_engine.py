"""The queue in front of the model: short, honest about waiting, and gone in good order."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from deployments.refine_service import engine as engine_module
from deployments.refine_service.app import create_app
from deployments.refine_service.engine import Engine, Job, LiveFailed, Refused
from deployments.refine_service.metrics import Metrics
from deployments.refine_service.model import make_session_opener
from segvigen_model.checkpoints.native import save_model
from segvigen_model.model.bundle import build_model
from segvigen_model.session import Session
from tasks.live.session import LiveSession
from tasks.settings import LiveSettings

SETTINGS = LiveSettings(max_waiting=2, timeout_s=5.0, max_assets=1, max_responses=2)


class SlowSession(LiveSession):
    """The real desk behind a gate."""

    def __init__(self, inner: LiveSession) -> None:
        self.__dict__.update(inner.__dict__)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.error: Exception | None = None

    def refine(self, asset, instructions):
        self.entered.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return super().refine(asset, instructions)


@pytest.fixture
def session(open_live_session) -> SlowSession:
    return SlowSession(open_live_session())


@pytest.fixture
def engine(session):
    made = Engine(lambda: session, SETTINGS, Metrics())
    made.start()
    for _ in range(500):
        if not made.problem:
            break
        time.sleep(0.01)
    yield made
    session.gate.set()
    made.stop()


def make_job(environment, name: str) -> Job:
    click = environment.make_keypoint("part 0", 1, name=name)
    return Job(environment.key, (click,), frozenset([name]))


def test_a_full_queue_refuses_and_reports_when_to_come_again(engine, session, live_env):
    futures = [engine.submit(make_job(live_env, "a"))]
    assert session.entered.wait(30), "the worker did not start"
    futures += [engine.submit(make_job(live_env, name)) for name in "bc"]
    with pytest.raises(Refused, match="2 requests are waiting; click again in") as caught:
        engine.submit(make_job(live_env, "d"))
    assert caught.value.reason == "queue_full" and caught.value.retry_after_s >= 1
    assert engine.submit(make_job(live_env, "b")) is futures[1], "an equal request is the same one"
    session.gate.set()
    assert all(future.result(30)["result"] for future in futures), "an accepted one was lost"


def test_memory_of_answers_is_bounded(engine, session, live_env):
    session.gate.set()
    for name in "abc":
        engine.submit(make_job(live_env, name)).result(30)
    assert engine.submit(make_job(live_env, "c")).done()
    again = engine.submit(make_job(live_env, "a"))
    assert again.result(30)["result"]


def test_a_stop_finishes_what_runs_and_refuses_the_rest(engine, session, live_env):
    running = engine.submit(make_job(live_env, "a"))
    assert session.entered.wait(30)
    waiting = engine.submit(make_job(live_env, "b"))
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    with pytest.raises(Refused, match="stopping; click again"):
        waiting.result(30)
    with pytest.raises(Refused, match="stopping"):
        engine.submit(make_job(live_env, "c"))
    session.gate.set()
    stopping.join(30)
    assert running.result(1)["result"]


@pytest.mark.parametrize(
    ("error", "wanted", "parsed"),
    [
        (ConnectionError("no route"), Refused, "store or catalogue cannot be reached"),
        (RuntimeError("secret detail"), LiveFailed, "failed on this task: RuntimeError"),
    ],
)
def test_a_broken_model_costs_one_answer_only(engine, session, live_env, error, wanted, parsed):
    session.gate.set()
    session.error = error
    with pytest.raises(wanted, match=parsed):
        engine.submit(make_job(live_env, "a")).result(30)
    session.error = None
    assert engine.submit(make_job(live_env, "a")).result(30)["result"], "the failure was remembered"


def test_a_request_that_waited_too_long_is_not_computed(session, live_env):
    short = SETTINGS.model_copy(update={"timeout_s": 0.05})
    engine = Engine(lambda: session, short, Metrics())
    engine.start()
    while engine.problem:
        time.sleep(0.01)
    first = engine.submit(make_job(live_env, "a"))
    assert session.entered.wait(30)
    late = engine.submit(make_job(live_env, "b"))
    time.sleep(0.1)
    session.gate.set()
    assert first.result(30)["result"], "what runs is finished and remembered"
    with pytest.raises(Refused, match="too long; click again"):
        late.result(30)
    engine.stop()


def test_not_ready_before_the_model_and_reports_why_when_it_cannot_load(live_env):
    gate = threading.Event()

    def never() -> LiveSession:
        gate.wait(30)
        raise FileNotFoundError("no checkpoint 'x'")

    with TestClient(create_app(live_env.settings, never)) as client:
        client.auth = ("label-studio", "live-secret")
        assert client.get("/health").status_code == 200
        assert client.get("/readyz").json()["status"] == "the model is being loaded"
        got = client.post("/predict", json=live_env.make_body(live_env.make_keypoint("part 0", 1)))
        assert got.status_code == 503 and int(got.headers["Retry-After"]) > 0
        assert 'segvigen_live_refusals_total{reason="not_ready"} 1.0' in client.get("/metrics").text
        gate.set()
        for _ in range(500):
            if "cannot be loaded" in client.get("/readyz").text:
                break
            time.sleep(0.01)
        assert "no checkpoint 'x'" in client.get("/readyz").json()["status"]
        health = client.get("/health")
        assert health.status_code == 503 and health.json() == {"status": "DOWN"}, "open to all"


def test_a_load_that_failed_is_tried_again(live_env, session, monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_S", 0.01)
    loads = []

    def third_time() -> LiveSession:
        loads.append(1)
        if len(loads) < 3:
            raise ConnectionError("the store does not answer")
        return session

    with TestClient(create_app(live_env.settings, third_time)) as client:
        for _ in range(500):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.01)
        assert client.get("/readyz").json()["status"] == "READY"
        assert client.get("/health").json() == {"status": "UP"} and len(loads) == 3


def test_sessions_are_held_for_as_many_assets_as_configured_and_dropped_before_the_next():
    opened: list[weakref.ref] = []
    alive: list[int] = []

    class Held:
        """Stands for a loaded asset, which takes no weak reference."""

    class Loads:
        def get_proposal(self, key, shown):
            return SimpleNamespace(sha256="s")

        def load(self, key, shown):
            gc.collect()
            alive.append(sum(ref() is not None for ref in opened))
            held = Held()
            opened.append(weakref.ref(held))
            return held

    engine = Engine(lambda: None, SETTINGS.model_copy(update={"max_assets": 2}), Metrics())
    for key in "abcdd":
        engine._get_asset(Loads(), key)
    assert alive == [0, 1, 1, 1], "an asset was held while the next one was opened"
    assert [key for key, _ in engine._assets] == ["c", "d"]


def test_the_service_opens_a_sample_before_it_is_ready(live_env, tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    save_model(build_model("tiny"), folder)
    environment = live_env.settings
    model = environment.model.model_copy(update={"checkpoint": str(folder)})
    prepared = []
    monkeypatch.setattr(Session, "prepare", lambda self: prepared.append(self.mesh.num_faces))
    make_session_opener(environment.model_copy(update={"model": model}))()
    assert len(prepared) == 1 and prepared[0] > 100


def test_a_service_that_cannot_load_stops_at_once():
    def never() -> LiveSession:
        raise FileNotFoundError("no checkpoint")

    engine = Engine(never, SETTINGS, Metrics())
    engine.start()
    while not engine.is_down:
        time.sleep(0.01)
    engine.stop(10)
    assert not engine._thread.is_alive()


def test_a_slow_answer_times_out_with_503_and_is_there_later(live_env, session):
    live = live_env.settings.live.model_copy(update={"timeout_s": 0.2})
    settings = live_env.settings.model_copy(update={"live": live})
    with TestClient(create_app(settings, lambda: session)) as client:
        client.auth = ("label-studio", "live-secret")
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        body = live_env.make_body(live_env.make_keypoint("part 0", 1, name="slow"))
        got = client.post("/predict", json=body)
        assert got.status_code == 503 and "no result within 0.2 s" in got.json()["error"]
        session.gate.set()
        for _ in range(200):
            got = client.post("/predict", json=body)
            if got.status_code == 200:
                break
            time.sleep(0.05)
        assert got.json()["results"][0]["result"]


def test_opening_a_task_makes_its_asset_warm(live_env, open_live_session):
    with TestClient(create_app(live_env.settings, open_live_session)) as client:
        client.auth = ("label-studio", "live-secret")
        task = {"id": 1, "data": {"key": live_env.key}}
        body = {"tasks": [task], "params": {"context": None}}
        assert client.post("/predict", json=body).json()["results"] == []
        for _ in range(500):
            if "segvigen_live_asset_loads_total 1.0" in client.get("/metrics").text:
                return
            time.sleep(0.02)
        raise AssertionError("the asset was not loaded")
