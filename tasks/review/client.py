"""Thin client of Label Studio's REST interface: the dozen calls that every round makes.

Reads are repeated on transient errors, writes never: a repeated import makes a second task. Plain
requests, because an annotation is stored as the server sent it; the set-up uses the SDK (sdk.py).
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import httpx

from segvigen_model.errors import SegvigenError
from tasks.review.fence import (
    Unreadable,
    check_json,
    decode_json,
    dump_raw,
    read_id,
    read_mapping,
    read_time,
)

READ_ATTEMPTS = 4
RETRY_PAUSE_S = 0.5
TIMEOUT_S = 60.0
PAGE_SIZE = 100
MAX_KEYS_PER_QUERY = 200  # in one filter
IMPORT_TASKS = 500  # in one request
ACCESS_TOKEN_LIFE_S = 240.0  # the server gives 300
MAX_BODY_CHARS = 300


class LabelStudioError(SegvigenError):
    """Label Studio refused a request; the message has method, path, status and its words."""


class LabelStudioUnavailable(LabelStudioError, ConnectionError):
    """Label Studio does not answer, or not now; trying later may help."""


@dataclass(frozen=True, slots=True)
class LabelStudioTask:
    """A task as Label Studio has it.

    Attributes:
        task_id: may be reused by Label Studio after a delete; `key` is the identity.
        key: "<asset id>:<round>".
        num_annotations: annotations, skipped ones included.
        annotations: raw, only where asked for.
        problem: why it cannot be read, in place of what it says; "" if it can.
        raw: as it came, where there is a problem.
    """

    task_id: int
    key: str
    num_annotations: int
    updated_at: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    annotations: tuple[Any, ...] = ()
    problem: str = ""
    raw: Any = None


class LabelStudioClient:
    """One user's access to one Label Studio.

    Args:
        url: base URL, with or without a sub-path.
        api_key: legacy token or personal access token; never shown.
        timeout_s: for one request.
    """

    def __init__(self, url: str, api_key: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._bearer: tuple[str, float] | None = None
        self._users: dict[int, str] = {}
        # A proxy meant for the outside world must not see the reviewers' desk.
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def __repr__(self) -> str:
        return f"LabelStudioClient({self.url!r})"

    def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Send one request; returns the decoded JSON, or None for an empty answer.

        Raises:
            LabelStudioUnavailable: no response, or one that means "not now" (429, 5xx).
            LabelStudioError: any other refusal.
        """
        attempts = READ_ATTEMPTS if method == "GET" else 1
        for attempt in range(attempts):
            try:
                return self._send(method, path, params, body)
            except LabelStudioUnavailable:
                if attempt + 1 == attempts:
                    raise
                time.sleep(RETRY_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def get_user_name(self, user_id: int | None) -> str:
        """E-mail address of a user, or "user <id>" if unknown."""
        if user_id is None:
            return "unknown"
        if user_id not in self._users:
            found = self.request("GET", "/api/users/")
            try:
                self._users.update({int(user["id"]): str(user["email"]) for user in found})
            except (TypeError, KeyError, ValueError) as err:
                raise LabelStudioUnavailable(f"{self.url} sent no list of users: {err!r}") from err
        return self._users.setdefault(user_id, f"user {user_id}")

    def find_tasks(self, project_id: int, keys: Sequence[str]) -> list[LabelStudioTask]:
        """Tasks whose data.key is one of `keys`; a key may have several, or none."""
        found: list[LabelStudioTask] = []
        for start in range(0, len(keys), MAX_KEYS_PER_QUERY):
            wanted = list(keys[start : start + MAX_KEYS_PER_QUERY])
            query = _make_query("tasks:data.key", "in_list", "String", wanted)
            params = {
                "fields": "task_only",
                "include": "id,data,total_annotations,cancelled_annotations,updated_at",
            }
            found += self._list_tasks(project_id, query, params)
        return [task for task in found if not task.problem]

    def find_annotated_tasks(self, project_id: int, keys: Sequence[str]) -> list[LabelStudioTask]:
        """Tasks of these keys that have answers, with all of them, skipped ones included."""
        found: list[LabelStudioTask] = []
        for start in range(0, len(keys), MAX_KEYS_PER_QUERY):
            wanted = list(keys[start : start + MAX_KEYS_PER_QUERY])
            query = _make_query("tasks:data.key", "in_list", "String", wanted)
            found += self._list_tasks(project_id, query, {"fields": "all"})
        return [task for task in found if task.num_annotations > 0 and not task.problem]

    def fetch_tasks(self, project_id: int, task_ids: Sequence[int]) -> Iterator[LabelStudioTask]:
        """Tasks by id with all their annotations, one at a time: a bad one spoils no other."""
        for task_id in task_ids:
            query = _make_query("tasks:id", "equal", "Number", task_id)
            try:
                page = self._fetch_page(project_id, query, {"fields": "all"}, 1, 1)
            except LabelStudioUnavailable as err:
                yield LabelStudioTask(task_id, "", 0, problem=f"cannot be fetched: {err}"[:500])
            else:
                yield from (_make_task(row) for row in page["tasks"])

    def list_tasks_updated_since(self, project_id: int, since: str) -> Iterator[LabelStudioTask]:
        """Tasks with annotations changed at or after `since` (ISO time), oldest change first.

        Each page begins at the time where the one before it ended: an edited task moves to the
        end of this list, and pages by number would pass over the one that takes its place.
        """
        seen: set[tuple[int, str]] = set()
        begin, size = _format_time(since), PAGE_SIZE
        while True:
            query = _make_query("tasks:updated_at", "greater_or_equal", "Datetime", begin)
            query["ordering"] = ["tasks:updated_at"]
            rows, total = self._fetch_changed(project_id, query, size)
            yield from (row for row in rows if (row.task_id, row.updated_at) not in seen)
            if not rows or len(rows) >= total:
                return
            seen.update((row.task_id, row.updated_at) for row in rows)
            times = [row.updated_at for row in rows if row.updated_at]
            if not times:
                raise LabelStudioUnavailable(f"{self.url} lists {len(rows)} tasks without a time")
            end = _format_time(times[-1])
            if end == begin:  # all of one moment: only a longer page shows what comes after
                if len(rows) < size:
                    raise LabelStudioError(
                        f"{self.url} lists {len(rows)} tasks at a time and more changed at {end}; "
                        "raise Label Studio's TASK_API_PAGE_SIZE_MAX"
                    )
                size *= 2
            begin = end

    def _fetch_changed(
        self, project_id: int, query: Mapping[str, Any], size: int
    ) -> tuple[list[LabelStudioTask], int]:
        """A page with all annotations; where it cannot be read, its tasks one at a time.

        One task that the server cannot write out makes it refuse every page that holds it.
        """
        try:
            page = self._fetch_page(project_id, query, {"fields": "all"}, 1, size)
            return [_make_task(row) for row in page["tasks"]], page["total"]
        except LabelStudioUnavailable:
            params = {"fields": "task_only", "include": "id,updated_at"}
            page = self._fetch_page(project_id, query, params, 1, size)  # else it is an outage
            listed = [row for row in map(_make_task, page["tasks"]) if not row.problem]
            times = {row.task_id: row.updated_at for row in listed}
            rows = list(self.fetch_tasks(project_id, list(times)))
            if len(rows) > 1 and all(row.problem for row in rows):
                raise  # the server is at fault, not each of its tasks
            return [replace(row, updated_at=times[row.task_id]) for row in rows], page["total"]

    def list_open_tasks(self, project_id: int) -> list[LabelStudioTask]:
        """Tasks that nobody has answered or skipped yet, oldest first."""
        query = _make_query("tasks:total_annotations", "equal", "Number", 0)
        nobody = {"filter": "filter:tasks:cancelled_annotations", "operator": "equal"}
        query["filters"]["items"].append({**nobody, "type": "Number", "value": 0})
        params = {
            "fields": "task_only",
            "include": "id,data,total_annotations,cancelled_annotations,updated_at",
        }
        found = self._list_tasks(project_id, query, params)
        return [task for task in found if not task.problem]

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Create tasks; returns their ids. Sent once: look up what exists before and after."""
        made: list[int] = []
        for start in range(0, len(tasks), IMPORT_TASKS):
            response = self.request(
                "POST",
                f"/api/projects/{project_id}/import",
                params={"return_task_ids": "true"},
                body=list(tasks[start : start + IMPORT_TASKS]),
            )
            made += [int(task_id) for task_id in response["task_ids"]]
        return made

    def delete_task(self, task_id: int) -> None:
        """Delete a task with its annotations; one that is gone already is fine."""
        self._delete(f"/api/tasks/{task_id}/")

    def create_annotation(self, task_id: int, annotation: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a task as its user; returns what Label Studio stored."""
        path = f"/api/tasks/{task_id}/annotations/"
        response: dict[str, Any] = self.request("POST", path, body=dict(annotation))
        return response

    def delete_annotation(self, annotation_id: int) -> None:
        """Take an answer back, so that the task is asked again; a missing one is fine."""
        self._delete(f"/api/annotations/{annotation_id}/")

    def _delete(self, path: str) -> None:
        try:
            self.request("DELETE", path)
        except LabelStudioError as err:
            if "status 404" not in str(err):
                raise

    def _list_tasks(
        self, project_id: int, query: Mapping[str, Any], params: Mapping[str, Any]
    ) -> Iterator[LabelStudioTask]:
        """Every page of a filtered list. A page past the end is an error for the server."""
        seen, page = 0, 1
        while True:
            response = self._fetch_page(project_id, query, params, page, PAGE_SIZE)
            for row in response["tasks"]:
                yield _make_task(row)
            seen += len(response["tasks"])
            if not response["tasks"] or seen >= response["total"]:
                return
            page += 1

    def _fetch_page(
        self,
        project_id: int,
        query: Mapping[str, Any],
        params: Mapping[str, Any],
        page: int,
        size: int,
    ) -> Any:
        query_params = {
            **params,
            "project": project_id,
            "query": json.dumps(query),
            "resolve_uri": "false",
            "page": page,
            "page_size": size,
        }
        response = self.request("GET", "/api/tasks/", params=query_params)
        tasks, total = None, None
        if isinstance(response, Mapping):
            tasks, total = response.get("tasks"), response.get("total")
        if not isinstance(tasks, list) or isinstance(total, bool) or not isinstance(total, int):
            shown = dump_raw(response, MAX_BODY_CHARS)
            raise LabelStudioUnavailable(f"{self.url} sent no page of tasks: {shown}")
        return {"tasks": tasks, "total": total}

    def _send(self, method: str, path: str, params: Mapping[str, Any] | None, body: Any) -> Any:
        try:
            headers = self._get_authorization()
            response = self._http.request(method, path, params=params, json=body, headers=headers)
        except httpx.TransportError as err:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} does not answer: {err!r}"
            ) from err
        if response.is_success:
            return _decode(response)
        message = _make_error(response)
        if response.status_code == 401:
            message += "; check SEGVIGEN_REVIEW_API_KEY"
        raise LabelStudioError(message)

    def _get_authorization(self) -> dict[str, str]:
        if not _is_personal_token(self._api_key):
            return {"Authorization": f"Token {self._api_key}"}
        if self._bearer is None or time.monotonic() > self._bearer[1]:
            response = self._http.post("/api/token/refresh/", json={"refresh": self._api_key})
            if not response.is_success:
                raise LabelStudioError(
                    f"{_make_error(response)}; personal access token refused, "
                    "make a new one under Account & Settings"
                )
            granted = _decode(response)
            access = str(granted.get("access")) if isinstance(granted, Mapping) else ""
            self._bearer = (access, time.monotonic() + ACCESS_TOKEN_LIFE_S)
        return {"Authorization": f"Bearer {self._bearer[0]}"}


def _make_error(reply: httpx.Response) -> str:
    """Message of a refusal; raises LabelStudioUnavailable where a later request may succeed."""
    sent, body = reply.request, reply.text[:MAX_BODY_CHARS]
    message = f"{sent.method} {sent.url.copy_with(query=None)}: status {reply.status_code}: {body}"
    if is_temporary_status(reply.status_code):
        raise LabelStudioUnavailable(message)
    return message


def _decode(reply: httpx.Response) -> Any:
    """The JSON of an answer, None for an empty one; a proxy's or login's page is an outage."""
    if not reply.content:
        return None
    try:
        return decode_json(reply.content)
    except ValueError as err:
        sent, kind = reply.request, reply.headers.get("content-type", "no type")
        shown = ascii(reply.content[:MAX_BODY_CHARS].decode("utf-8", "replace"))
        raise LabelStudioUnavailable(
            f"{sent.method} {sent.url.copy_with(query=None)}: status {reply.status_code} with "
            f"{len(reply.content)} bytes of {kind[:40]} that are no JSON ({str(err)[:80]}): {shown}"
        ) from err


def is_temporary_status(status: int) -> bool:
    """May the same request succeed later?"""
    return status == 429 or status >= 500


def _make_query(name: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    item = {"filter": f"filter:{name}", "operator": operator, "type": kind, "value": value}
    return {"filters": {"conjunction": "and", "items": [item]}}


def _format_time(time_text: str) -> str:
    """An ISO time as the server's filter wants it: UTC, with a fraction even where it is 0."""
    return datetime.fromisoformat(time_text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _make_task(row: Any) -> LabelStudioTask:
    """A task of a list; what cannot be read is in its `problem`."""
    task_id, updated_at = 0, ""
    try:
        fields = read_mapping(row, "the task")
        task_id = read_id(fields)
        if fields.get("updated_at") is not None:
            updated_at = read_time(fields, "updated_at")
        data = read_mapping(fields.get("data") or {}, "data")
        counts = [
            read_id({name: fields.get(name) or 0}, name)
            for name in ("total_annotations", "cancelled_annotations")
        ]
        annotations = fields.get("annotations") or []
        if not isinstance(annotations, list):
            raise Unreadable(f"annotations are {type(annotations).__name__}, not a list")
        check_json(data)
    except Unreadable as err:
        return LabelStudioTask(task_id, "", 0, updated_at, problem=str(err), raw=row)
    key = data.get("key", "")
    return LabelStudioTask(
        task_id=task_id,
        key=key if isinstance(key, str) else "",
        num_annotations=sum(counts),
        updated_at=updated_at,
        data=data,
        annotations=tuple(annotations),
    )


def _is_personal_token(api_key: str) -> bool:
    """Personal access tokens are JSON web tokens: three parts, the first of them JSON."""
    head = api_key.partition(".")[0]
    if api_key.count(".") != 2:
        return False
    try:
        json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error):
        return False
    return True
