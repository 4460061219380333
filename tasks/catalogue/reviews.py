"""Ledger of the desk: review tasks, reviewers' answers (every version, raw), clicks and verbs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database, values
from tasks.catalogue.rows import AnnotationRow, ClickRow, ReviewTaskRow, VerbRow
from tasks.catalogue.tables import clicks as K
from tasks.catalogue.tables import review_annotations as N
from tasks.catalogue.tables import review_tasks as T
from tasks.catalogue.tables import verbs as B

LATE = "#late"  # ends ids of answers to a round that was over: kept, but not part of its history


class ReviewLedger:
    """What went to the desk and what came back."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add_task(self, task: ReviewTaskRow) -> None:
        """Record the desk's task of a round; the same round again replaces it."""
        row = replace(task, created_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(T, values(row))
            told = {"round": row.round, "project_id": row.project_id, "task_id": row.task_id}
            self._db.event("review_task", row.asset_id, told)

    def task(self, asset_id: str, round: int) -> ReviewTaskRow | None:
        """The desk's task of one round, or None."""
        found = self._db.rows(sa.select(T).where(T.c.asset_id == asset_id, T.c.round == round))
        return ReviewTaskRow(**found[0]) if found else None

    def tasks(self, asset_id: str | None = None) -> list[ReviewTaskRow]:
        """All tasks, or one asset's, by round."""
        query = sa.select(T).order_by(T.c.asset_id, T.c.round)
        if asset_id is not None:
            query = query.where(T.c.asset_id == asset_id)
        return [ReviewTaskRow(**row) for row in self._db.rows(query)]

    def record_annotation(self, annotation: AnnotationRow) -> bool:
        """Store one version of an answer; False when that version is there already.

        A version that was stored but not interpreted (the process died) is not new; ask
        `annotation` for its `is_interpreted`.
        """
        row = replace(annotation, created_at=self._db.clock())
        with self._db.begin():
            if not self._db.insert(N, values(row)):
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
        said = {K: [values(click) for click in clicks], B: [values(verb) for verb in verbs]}
        one = (N.c.unique_id == unique_id, N.c.updated_at == updated_at)
        meaning = {"verdict": verdict, "note": note, "problem": problem, "is_interpreted": True}
        with self._db.begin() as connection:
            connection.execute(sa.update(N).where(*one).values(**meaning))
            for table, rows in said.items():
                key = (table.c.unique_id == unique_id, table.c.updated_at == updated_at)
                connection.execute(sa.delete(table).where(*key))
                if rows:
                    connection.execute(sa.insert(table), rows)
            told = {"unique_id": unique_id, "verdict": verdict, "clicks": len(said[K])}
            told |= {"verbs": len(said[B])} if said[B] else {}
            found = self.annotation(unique_id, updated_at)
            self._db.event("interpreted", found.asset_id if found else None, told)

    def set_aside(self, asset_id: str, unique_id: str, updated_at: str | None = None) -> None:
        """Take an answer, all of it or one version, out of its round's history; raw it is kept."""

        def mine(table: sa.Table) -> list[sa.ColumnElement[bool]]:
            version = [] if updated_at is None else [table.c.updated_at == updated_at]
            return [table.c.unique_id == unique_id, *version]

        with self._db.begin() as connection:
            for table in (K, B):
                connection.execute(sa.delete(table).where(*mine(table)))
            late = sa.update(N).where(*mine(N)).values(unique_id=unique_id + LATE)
            if connection.execute(late).rowcount:
                self._db.event("set_aside", asset_id, {"unique_id": unique_id})

    def annotation(self, unique_id: str, updated_at: str) -> AnnotationRow | None:
        """One version of an answer, or None."""
        one = (N.c.unique_id == unique_id, N.c.updated_at == updated_at)
        found = self._db.rows(sa.select(N).where(*one))
        return AnnotationRow(**found[0]) if found else None

    def annotations(self, asset_id: str, round: int | None = None) -> list[AnnotationRow]:
        """The newest version of every answer to an asset (in one round), oldest first."""
        query = sa.select(N).where(N.c.asset_id == asset_id)
        if round is not None:
            query = query.where(N.c.round == round)
        newest: dict[str, AnnotationRow] = {}
        for row in self._db.rows(query.order_by(N.c.updated_at, N.c.unique_id)):
            newest[row["unique_id"]] = AnnotationRow(**row)
        return sorted(newest.values(), key=lambda row: (row.round, row.updated_at, row.unique_id))

    def uninterpreted(self) -> list[AnnotationRow]:
        """Answers that were stored and not yet understood, oldest first."""
        query = sa.select(N).where(N.c.is_interpreted.is_(False))
        query = query.order_by(N.c.updated_at, N.c.unique_id)
        return [AnnotationRow(**row) for row in self._db.rows(query)]

    def clicks(self, asset_id: str, round: int | None = None) -> list[ClickRow]:
        """Clicks of the newest version of every answer (in one round), in the order made."""
        found: list[ClickRow] = []
        for answer in self.annotations(asset_id, round):
            one = (K.c.unique_id == answer.unique_id, K.c.updated_at == answer.updated_at)
            query = sa.select(K).where(*one).order_by(K.c.number)
            found.extend(ClickRow(**row) for row in self._db.rows(query))
        return found

    def verbs(self, asset_id: str, round: int | None = None) -> list[VerbRow]:
        """Verbs of the newest version of every answer (in one round), in the order written."""
        found: list[VerbRow] = []
        for answer in self.annotations(asset_id, round):
            one = (B.c.unique_id == answer.unique_id, B.c.updated_at == answer.updated_at)
            rows = self._db.rows(sa.select(B).where(*one).order_by(B.c.number))
            found.extend(VerbRow(**{**row, "parts": tuple(row["parts"])}) for row in rows)
        return found
