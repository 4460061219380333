"""An S3 server that falls ill on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tasks.settings import StoreSettings
from tasks.storage.store import Store

# Method and path ("/bucket/key") of a request -> status and code to answer, or None.
Rule = Callable[[str, str], tuple[int, str] | None]


@dataclass
class FaultyS3:
    """moto, but a request that meets `rule` gets the answer of a server that is ill."""

    url: str = ""
    rule: Rule = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    real: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = self.rule(method, path)
        if fault is None:
            return self.real(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code = fault
        body = f"<Error><Code>{code}</Code><Message>as you asked</Message></Error>".encode()
        body = b"" if method == "HEAD" else body
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response(f"{status} {code}", headers)
        return [body]

    def new_store(self) -> Store:
        """A store in a new bucket."""
        bucket = f"faulty-{uuid4().hex[:12]}"
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        settings = StoreSettings(
            root_url=f"s3://{bucket}/root",
            s3_endpoint_url=self.url,
            s3_access_key="key",
            s3_secret_key="secret",
            s3_region="us-east-1",
        )
        return Store.from_settings(settings)


@pytest.fixture
def faulty_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A server without any fault yet; clients give up at once."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    faulty = FaultyS3()
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    faulty.url = f"http://127.0.0.1:{server.server_port}"
    yield faulty
    server.shutdown()
    thread.join()
    server.server_close()
