"""Ledger of reviews: tasks, annotations (every version, raw), clicks and edit commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.rows import AnnotationRow, ClickRow, EditCommandRow, ReviewTaskRow

_OLDEST_FIRST = (AnnotationRow.updated_at, AnnotationRow.unique_id)


class ReviewLedger:
    """Tasks that were pushed and annotations that were pulled."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add_task(self, task: ReviewTaskRow) -> None:
        """Record Label Studio's task of a round; the same round again replaces it."""
        with self._db.begin():
            row = replace(task, created_at=self._db.clock())
            self._db.upsert(row)
            event_detail = {
                "round": row.round,
                "project_id": row.project_id,
                "task_id": row.task_id,
            }
            self._db.add_event("review_task", row.asset_id, event_detail)

    def get_task(self, asset_id: str, round: int) -> ReviewTaskRow | None:
        """Label Studio's task of one round, or None."""
        mine = (ReviewTaskRow.asset_id == asset_id, ReviewTaskRow.round == round)
        return self._db.load_first(sa.select(ReviewTaskRow).where(*mine))

    def list_tasks(self, asset_id: str | None = None) -> list[ReviewTaskRow]:
        """All tasks, or one asset's, by round."""
        query = sa.select(ReviewTaskRow).order_by(ReviewTaskRow.asset_id, ReviewTaskRow.round)
        if asset_id is not None:
            query = query.where(ReviewTaskRow.asset_id == asset_id)
        return self._db.load(query)

    def record_annotation(self, annotation: AnnotationRow) -> bool:
        """Store one version of an answer; False when that version is there already.

        A version that was stored but not interpreted (the process died) is not new; ask
        `get_annotation` for its `is_interpreted`.
        """
        with self._db.begin():
            row = replace(annotation, created_at=self._db.clock())
            if not self._db.insert(row):
                return False
            event_detail = {
                "unique_id": row.unique_id,
                "updated_at": row.updated_at,
                "round": row.round,
            }
            self._db.add_event("annotation", row.asset_id, event_detail)
        return True

    # More than five parameters: keywords, what one annotation can hold.
    def interpret(
        self,
        unique_id: str,
        updated_at: str,
        *,
        verdict: str | None,
        note: str = "",
        problem: str | None = None,
        clicks: Iterable[ClickRow] = (),
        commands: Iterable[EditCommandRow] = (),
    ) -> None:
        """Store an annotation's verdict, note, problem, clicks and commands, replacing all."""
        points, edits = list(clicks), list(commands)
        one = (AnnotationRow.unique_id == unique_id, AnnotationRow.updated_at == updated_at)
        meaning = {"verdict": verdict, "note": note, "problem": problem, "is_interpreted": True}
        with self._db.begin() as connection:
            connection.execute(sa.update(AnnotationRow).where(*one).values(**meaning))
            for kind in (ClickRow, EditCommandRow):
                key = (kind.unique_id == unique_id, kind.updated_at == updated_at)
                connection.execute(sa.delete(kind).where(*key))
            self._db.insert_all(points)
            self._db.insert_all(edits)
            event_detail = {"unique_id": unique_id, "verdict": verdict, "clicks": len(points)}
            event_detail |= {"commands": len(edits)} if edits else {}
            found = self.get_annotation(unique_id, updated_at)
            self._db.add_event("interpreted", found.asset_id if found else None, event_detail)

    def reopen(self, unique_id: str, updated_at: str) -> None:
        """Have the next pull interpret a version of an answer again that none could."""
        one = (AnnotationRow.unique_id == unique_id, AnnotationRow.updated_at == updated_at)
        unread = (AnnotationRow.is_interpreted.is_(True), AnnotationRow.verdict.is_(None))
        with self._db.begin() as connection:
            again = sa.update(AnnotationRow).where(*one, *unread)
            if connection.execute(again.values(is_interpreted=False, problem=None)).rowcount:
                found = self.get_annotation(unique_id, updated_at)
                asset_id = found.asset_id if found else None
                self._db.add_event("reopened", asset_id, {"unique_id": unique_id})

    def mark_late(self, asset_id: str, unique_id: str, updated_at: str | None = None) -> None:
        """Take an answer, all of it or one version, out of its round's history; raw it is kept."""

        def select_rows(
            kind: type[AnnotationRow | ClickRow | EditCommandRow],
        ) -> list[sa.ColumnElement[bool]]:
            version = [] if updated_at is None else [kind.updated_at == updated_at]
            return [kind.unique_id == unique_id, *version]

        with self._db.begin() as connection:
            for kind in (ClickRow, EditCommandRow):
                connection.execute(sa.delete(kind).where(*select_rows(kind)))
            late = sa.update(AnnotationRow).values(is_late=True)
            late = late.where(*select_rows(AnnotationRow), AnnotationRow.is_late.is_(False))
            if connection.execute(late).rowcount:
                self._db.add_event("marked_late", asset_id, {"unique_id": unique_id})

    def get_annotation(self, unique_id: str, updated_at: str) -> AnnotationRow | None:
        """One version of an answer, or None."""
        one = (AnnotationRow.unique_id == unique_id, AnnotationRow.updated_at == updated_at)
        return self._db.load_first(sa.select(AnnotationRow).where(*one))

    def list_annotations(self, asset_id: str, round: int | None = None) -> list[AnnotationRow]:
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

    def list_uninterpreted(self) -> list[AnnotationRow]:
        """Answers that were stored and not yet understood, oldest first."""
        query = sa.select(AnnotationRow).where(AnnotationRow.is_interpreted.is_(False))
        return self._db.load(query.order_by(*_OLDEST_FIRST))

    def list_clicks(self, asset_id: str, round: int | None = None) -> list[ClickRow]:
        """Clicks of the newest version of every answer (in one round), in the order made."""
        found: list[ClickRow] = []
        for annotation in self.list_annotations(asset_id, round):
            one = (
                ClickRow.unique_id == annotation.unique_id,
                ClickRow.updated_at == annotation.updated_at,
            )
            found += self._db.load(sa.select(ClickRow).where(*one).order_by(ClickRow.number))
        return found

    def list_edit_commands(self, asset_id: str, round: int | None = None) -> list[EditCommandRow]:
        """Edit commands of the newest version of every annotation (in one round), in order."""
        found: list[EditCommandRow] = []
        for annotation in self.list_annotations(asset_id, round):
            one = (
                EditCommandRow.unique_id == annotation.unique_id,
                EditCommandRow.updated_at == annotation.updated_at,
            )
            found += self._db.load(
                sa.select(EditCommandRow).where(*one).order_by(EditCommandRow.number)
            )
        return found
