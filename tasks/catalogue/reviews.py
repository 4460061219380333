"""Ledger of the desk: review tasks, reviewers' answers (every version, raw), clicks and verbs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.rows import AnnotationRow, ClickRow, ReviewTaskRow, VerbRow

_OLDEST_FIRST = (AnnotationRow.updated_at, AnnotationRow.unique_id)


class ReviewLedger:
    """What went to the desk and what came back."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add_task(self, task: ReviewTaskRow) -> None:
        """Record the desk's task of a round; the same round again replaces it."""
        row = replace(task, created_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(row)
            told = {"round": row.round, "project_id": row.project_id, "task_id": row.task_id}
            self._db.event("review_task", row.asset_id, told)

    def task(self, asset_id: str, round: int) -> ReviewTaskRow | None:
        """The desk's task of one round, or None."""
        mine = (ReviewTaskRow.asset_id == asset_id, ReviewTaskRow.round == round)
        return self._db.load_first(sa.select(ReviewTaskRow).where(*mine))

    def tasks(self, asset_id: str | None = None) -> list[ReviewTaskRow]:
        """All tasks, or one asset's, by round."""
        query = sa.select(ReviewTaskRow).order_by(ReviewTaskRow.asset_id, ReviewTaskRow.round)
        if asset_id is not None:
            query = query.where(ReviewTaskRow.asset_id == asset_id)
        return self._db.load(query)

    def record_annotation(self, annotation: AnnotationRow) -> bool:
        """Store one version of an answer; False when that version is there already.

        A version that was stored but not interpreted (the process died) is not new; ask
        `annotation` for its `is_interpreted`.
        """
        row = replace(annotation, created_at=self._db.clock())
        with self._db.begin():
            if not self._db.insert(row):
                return False
            told = {"unique_id": row.unique_id, "updated_at": row.updated_at, "round": row.round}
            self._db.event("annotation", row.asset_id, told)
        return True

    def interpret(
        self,
        unique_id: str,
        updated_at: str,
        *,
        verdict: str | None,
        note: str = "",
        problem: str | None = None,
        clicks: Iterable[ClickRow] = (),
        verbs: Iterable[VerbRow] = (),
    ) -> None:
        """Store what an answer means: verdict, note, problem, clicks and verbs (replacing all)."""
        points, edits = list(clicks), list(verbs)
        one = (AnnotationRow.unique_id == unique_id, AnnotationRow.updated_at == updated_at)
        meaning = {"verdict": verdict, "note": note, "problem": problem, "is_interpreted": True}
        with self._db.begin() as connection:
            connection.execute(sa.update(AnnotationRow).where(*one).values(**meaning))
            for kind in (ClickRow, VerbRow):
                key = (kind.unique_id == unique_id, kind.updated_at == updated_at)
                connection.execute(sa.delete(kind).where(*key))
            self._db.insert_all(points)
            self._db.insert_all(edits)
            told = {"unique_id": unique_id, "verdict": verdict, "clicks": len(points)}
            told |= {"verbs": len(edits)} if edits else {}
            found = self.annotation(unique_id, updated_at)
            self._db.event("interpreted", found.asset_id if found else None, told)

    def set_aside(self, asset_id: str, unique_id: str, updated_at: str | None = None) -> None:
        """Take an answer, all of it or one version, out of its round's history; raw it is kept."""

        def mine(kind: type[AnnotationRow | ClickRow | VerbRow]) -> list[sa.ColumnElement[bool]]:
            version = [] if updated_at is None else [kind.updated_at == updated_at]
            return [kind.unique_id == unique_id, *version]

        with self._db.begin() as connection:
            for kind in (ClickRow, VerbRow):
                connection.execute(sa.delete(kind).where(*mine(kind)))
            late = sa.update(AnnotationRow).values(is_late=True)
            late = late.where(*mine(AnnotationRow), AnnotationRow.is_late.is_(False))
            if connection.execute(late).rowcount:
                self._db.event("set_aside", asset_id, {"unique_id": unique_id})

    def annotation(self, unique_id: str, updated_at: str) -> AnnotationRow | None:
        """One version of an answer, or None."""
        one = (AnnotationRow.unique_id == unique_id, AnnotationRow.updated_at == updated_at)
        return self._db.load_first(sa.select(AnnotationRow).where(*one))

    def annotations(self, asset_id: str, round: int | None = None) -> list[AnnotationRow]:
        """The newest version of every answer to an asset (in one round), oldest first.

        Late versions are no part of the round's history: the newest of them comes beside the
        newest of the others.
        """
        query = sa.select(AnnotationRow).where(AnnotationRow.asset_id == asset_id)
        if round is not None:
            query = query.where(AnnotationRow.round == round)
        newest: dict[tuple[str, bool], AnnotationRow] = {}
        for row in self._db.load(query.order_by(*_OLDEST_FIRST)):
            newest[row.unique_id, row.is_late] = row
        return sorted(newest.values(), key=lambda row: (row.round, row.updated_at, row.unique_id))

    def uninterpreted(self) -> list[AnnotationRow]:
        """Answers that were stored and not yet understood, oldest first."""
        query = sa.select(AnnotationRow).where(AnnotationRow.is_interpreted.is_(False))
        return self._db.load(query.order_by(*_OLDEST_FIRST))

    def clicks(self, asset_id: str, round: int | None = None) -> list[ClickRow]:
        """Clicks of the newest version of every answer (in one round), in the order made."""
        found: list[ClickRow] = []
        for answer in self.annotations(asset_id, round):
            one = (ClickRow.unique_id == answer.unique_id, ClickRow.updated_at == answer.updated_at)
            found += self._db.load(sa.select(ClickRow).where(*one).order_by(ClickRow.number))
        return found

    def verbs(self, asset_id: str, round: int | None = None) -> list[VerbRow]:
        """Verbs of the newest version of every answer (in one round), in the order written."""
        found: list[VerbRow] = []
        for answer in self.annotations(asset_id, round):
            one = (VerbRow.unique_id == answer.unique_id, VerbRow.updated_at == answer.updated_at)
            found += self._db.load(sa.select(VerbRow).where(*one).order_by(VerbRow.number))
        return found
