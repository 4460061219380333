"""What counts for a live answer: the clicks of the request, those made before, and command lines.

The editor sends only the smart clicks of one label. Others come from what this process saw earlier
and from the reviewer's autosaved draft, so that a restart forgets nothing that was saved. Command
lines come from the draft alone. Label Studio does not name the user of a request: the owner is the
draft's user, or nobody when that is not clear.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.live.preview import make_echo_id
from tasks.review.label_config import CLICK, COMMANDS

Result = Mapping[str, Any]
DRAFT_LAG_S = 5.0  # a draft is saved some time after the click, and clocks differ
FIELDS = ("id", "from_name", "value", "meta", "is_positive")


@dataclass(frozen=True, slots=True)
class Draft:
    """What the editor saved by itself.

    Attributes:
        user: e-mail address or id, "" if unknown.
        saved_s: when, seconds since 1970.
        clicks: its keypoints.
        lines: its command lines, as they came.
    """

    user: str
    saved_s: float
    clicks: tuple[Result, ...]
    lines: tuple[Result, ...] = ()


@dataclass(slots=True)
class _HeldClick:
    result: Result
    seen_s: float


def select_keypoints(results: Any) -> tuple[Result, ...]:
    """The click results among untrusted ones; what has no id or label is none."""
    rows = results if isinstance(results, list) else []
    found = []
    for row in rows:
        is_click = isinstance(row, Mapping) and row.get("from_name") == CLICK
        if is_click and _get_label(row) and isinstance(row.get("id"), str):
            found.append({name: row[name] for name in FIELDS if name in row})
    return tuple(found)


def read_drafts(task: Mapping[str, Any]) -> tuple[Draft, ...]:
    """Drafts of a task as Label Studio sends them, newest last."""
    rows = task.get("drafts")
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping):
            saved_s = _parse_time(row.get("updated_at") or row.get("created_at"))
            user, results = str(row.get("user") or ""), row.get("result")
            found.append(Draft(user, saved_s, select_keypoints(results), _select_lines(results)))
    return tuple(sorted(found, key=lambda draft: draft.saved_s))


def select_command_lines(sent: Sequence[Result], drafts: Sequence[Draft]) -> tuple[Result, ...]:
    """The command lines of whoever made these clicks, as their newest draft has them."""
    _, draft = _find_owner(sent, drafts)
    return draft.lines if draft is not None else ()


class ClickHistory:
    """Clicks per (task, reviewer); the least recently used are forgotten.

    Args:
        max_places: (task, reviewer) pairs kept.
        max_clicks: per pair; the newest are dropped, as the pull does.
        clock: seconds since 1970.
    """

    def __init__(
        self, max_places: int = 500, max_clicks: int = 100, clock: Callable[[], float] = time.time
    ) -> None:
        self._places: OrderedDict[tuple[str, str], dict[str, _HeldClick]] = OrderedDict()
        self._max_places, self._max_clicks, self._clock = max_places, max_clicks, clock
        self._lock = threading.Lock()

    def update_clicks(
        self, key: str, sent: Sequence[Result], drafts: Sequence[Draft]
    ) -> list[Result]:
        """All clicks that count now, in the order made.

        Args:
            key: of the task.
            sent: clicks of the request, all of one label.
            drafts: of the task, newest last.
        """
        owner, draft = _find_owner(sent, drafts)
        with self._lock:
            # Before the first draft nobody's name was known: those clicks are this reviewer's.
            first = self._places.pop((key, ""), {}) if (key, owner) not in self._places else {}
            held = self._places.setdefault((key, owner), first)
            self._places.move_to_end((key, owner))
            while len(self._places) > self._max_places:
                self._places.popitem(last=False)
            if draft is not None:
                _reconcile(held, sent, draft)
            _take_sent(held, sent, self._clock())
            while len(held) > self._max_clicks:
                held.popitem()
            return [each.result for each in held.values()]


def _take_sent(held: dict[str, _HeldClick], sent: Sequence[Result], now_s: float) -> None:
    """Put the request's clicks in; known ones that it lacks were deleted, unless it has new ones.

    With new ones the editor has turned the older ones into plain points: a preview was accepted.
    """
    ids = {row["id"] for row in sent}
    labels = {_get_label(row) for row in sent}
    if sent and ids <= held.keys():
        mine = [known for known, each in held.items() if _get_label(each.result) in labels]
        for deleted in set(mine) - ids:
            del held[deleted]
    for row in sent:
        seen_s = held[row["id"]].seen_s if row["id"] in held else now_s
        held[row["id"]] = _HeldClick(row, seen_s)


def _reconcile(held: dict[str, _HeldClick], sent: Sequence[Result], draft: Draft) -> None:
    """Take over what the draft knows and we do not; drop what was gone when it was saved."""
    saved = {row["id"] for row in draft.clicks}
    for known in list(held):
        is_saved = known in saved or make_echo_id(known) in saved
        if not is_saved and held[known].seen_s < draft.saved_s - DRAFT_LAG_S:
            del held[known]
    ids = {row["id"] for row in sent}
    labels = {_get_label(row) for row in sent}
    echoes = {make_echo_id(known) for known in (*held, *ids)}
    first: dict[str, _HeldClick] = {}
    for row in draft.clicks:
        # A smart click of the request's own label would have been sent, were it still there.
        is_deleted = "is_positive" in row and _get_label(row) in labels
        if row["id"] not in held and row["id"] not in ids | echoes and not is_deleted:
            first[row["id"]] = _HeldClick(row, draft.saved_s)
    later = dict(held)
    held.clear()
    held.update(first | later)


def _find_owner(sent: Sequence[Result], drafts: Sequence[Draft]) -> tuple[str, Draft | None]:
    """Whose request this is, and their newest draft."""
    ids = {row["id"] for row in sent}
    users = {d.user for d in drafts if ids & {row["id"] for row in d.clicks}}
    users = users or {draft.user for draft in drafts}
    if len(users) != 1:
        return "", None
    (user,) = users
    return user, next(draft for draft in reversed(drafts) if draft.user == user)


def _select_lines(results: Any) -> tuple[Result, ...]:
    rows = results if isinstance(results, list) else []
    mine = [row for row in rows if isinstance(row, Mapping) and row.get("from_name") == COMMANDS]
    return tuple({name: row[name] for name in FIELDS if name in row} for row in mine)


def _get_label(row: Result) -> str:
    value = row.get("value")
    labels = value.get("keypointlabels") if isinstance(value, Mapping) else None
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else ""


def _parse_time(text: Any) -> float:
    """Time of an ISO text; long ago for anything else."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
