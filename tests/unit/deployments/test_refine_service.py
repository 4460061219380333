"""The service beside Label Studio: healthy, deaf to strangers, quick to note a webhook."""

import time

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from deployments.refine_service import app as service
from tasks.catalogue import Catalogue
from tasks.settings import load_settings

TOKEN = "0123456789abcdef"
HEADER = {"X-Segvigen-Token": TOKEN}


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/catalogue.db"


@pytest.fixture
def client(url, open_live_session):
    settings = load_settings(
        overrides={
            "catalogue": {"url": SecretStr(url)},
            "review": {"webhook_token": SecretStr(TOKEN), "live_password": SecretStr("pass")},
            "live": {"is_open": True},
        }
    )
    with TestClient(service.create_app(settings, open_live_session)) as running:
        while "loaded" in running.get("/readyz").text:
            time.sleep(0.02)
        yield running


INSIDE = ("/metrics", "/readyz", "/openapi.json")


@pytest.mark.parametrize("path", INSIDE)
def test_the_inside_is_shown_by_a_setting(client, path):
    assert client.get(path).status_code == 200


def test_the_inside_is_closed_by_default(url, open_live_session):
    review = {"webhook_token": SecretStr(TOKEN), "live_password": SecretStr("pass")}
    settings = load_settings(overrides={"catalogue": {"url": SecretStr(url)}, "review": review})
    with TestClient(service.create_app(settings, open_live_session)) as running:
        found = {path: running.get(path).status_code for path in ("/health", *INSIDE)}
        assert found == {"/health": 200, "/metrics": 401, "/readyz": 401, "/openapi.json": 404}
        login = (settings.review.live_user, "pass")
        assert running.get("/metrics", auth=login).status_code == 200
        assert running.get("/metrics", auth=(login[0], "no")).status_code == 401


def test_health_and_readiness(client):
    assert client.get("/health").json() == {"status": "UP"}
    assert client.get("/readyz").json()["status"] == "READY"


def test_not_ready_without_a_catalogue(client, monkeypatch):
    def broken() -> None:
        raise ConnectionError("database is gone")

    monkeypatch.setattr(client.app.state.catalogue, "count_assets", broken)
    assert client.get("/readyz").status_code == 503
    assert client.get("/health").status_code == 200


def test_backend_protocol_stores_nothing(client):
    body = {"project": "1.1", "schema": "<View/>", "access_token": "secret"}
    login = ("label-studio", "pass")
    response = client.post("/setup", json=body, auth=login)
    assert response.json() == {"model_version": service.MODEL_VERSION}
    batch = {"tasks": [{"id": 1, "data": {"key": "x:0"}}], "params": {"context": None}}
    assert client.post("/predict", json=batch, auth=login).json()["results"] == []
    assert client.post("/predict", json=batch, headers=HEADER).json()["results"] == []


def test_without_a_password_live_answers_are_off(url):
    catalogue = {"url": SecretStr(url)}
    settings = load_settings(overrides={"catalogue": catalogue})
    app = service.create_app(settings, lambda: None)
    with TestClient(app) as running:
        response = running.post("/predict", json={}, auth=("label-studio", ""))
    assert response.status_code == 401 and "SEGVIGEN_REVIEW_LIVE_PASSWORD" in response.text


def test_a_webhook_wakes_whoever_waits(client, url):
    catalogue = Catalogue(url)
    assert catalogue.raw.get_cursor(service.WAKE_UP) is None
    response = client.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=HEADER)
    assert response.status_code == 200
    first = catalogue.raw.get_cursor(service.WAKE_UP)
    assert first is not None
    client.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=HEADER)
    assert catalogue.raw.get_cursor(service.WAKE_UP) > first, "the same word twice wakes twice"


@pytest.mark.parametrize("headers", [{}, {"X-Segvigen-Token": "wrong"}, {"X-Segvigen-Token": "ü"}])
def test_an_unauthorized_caller_is_refused(client, url, headers):
    raw = {name: text.encode() for name, text in headers.items()}
    response = client.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=raw)
    assert response.status_code == 401
    assert Catalogue(url).raw.get_cursor(service.WAKE_UP) is None


def test_odd_bodies_are_noted_all_the_same(client):
    for body in (b"", b"not json", b"[1]", b'{"action": "<script>"}'):
        assert client.post("/webhook", content=body, headers=HEADER).status_code == 200
    text = client.get("/metrics").text
    assert 'segvigen_webhooks_total{action="other"} 4.0' in text
    assert "script" not in text


def test_unknown_paths_do_not_fill_the_metrics(client):
    for number in range(3):
        assert client.get(f"/x{number}").status_code == 404
    assert 'path="unknown"' in client.get("/metrics").text
    assert "/x1" not in client.get("/metrics").text


def test_the_flow_watches_the_same_cursor():
    from flows.pull_review import WAKE_UP

    assert WAKE_UP == service.WAKE_UP
