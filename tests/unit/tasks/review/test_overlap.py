"""Runs that overlap: what one decided meanwhile counts, and no answer is lost or undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.catalogue import AssetState
from tasks.review.pull import Reply, pull_annotations


class Interrupted:
    """A store in whose first read of a kind something else happens."""

    def __init__(self, store: Any, suffix: str, meanwhile: Callable[[], Any]) -> None:
        self._store, self._suffix, self._meanwhile = store, suffix, meanwhile
        self.told: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str) -> bytes:
        if key.endswith(self._suffix) and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            self.told = meanwhile()
        return self._store.get(key)


class Broken(Interrupted):
    """The same, and then the read fails for a reason of the asset's own."""

    def get(self, key: str) -> bytes:
        super().get(key)
        raise ValueError(f"{key} cannot be read")


def pull_overtaken(loop: Any, kind: type[Interrupted] = Interrupted) -> tuple[list[Reply], Any]:
    """A pull that reads an answer, and during that another one that does everything."""
    world = loop.world
    task = world.catalogue.reviews.task(loop.asset_id, world.catalogue.asset(loop.asset_id).round)
    slow = kind(world.store, task.buffers_key, loop.pull)
    review = world.settings.review
    late = pull_annotations(store=slow, catalogue=world.catalogue, desk=loop.desk, settings=review)
    return late, slow.told


@pytest.mark.parametrize("kind", [Interrupted, Broken])
@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("refine", AssetState.REFINING),
        ("accept", AssetState.ACCEPTED),
        ("reject", AssetState.REJECTED),
    ],
)
def test_the_faster_of_two_pulls_counts(loop: Any, verdict: str, state: str, kind: type) -> None:
    catalogue = loop.world.catalogue
    task = loop.push()
    loop.desk.client.answer(task.task_id, verdict, ["merge 0 1"])
    late, (reply,) = pull_overtaken(loop, kind)
    assert (late, reply.state) == ([], state)
    assert catalogue.asset(loop.asset_id).state is state
    (row,) = catalogue.reviews.annotations(loop.asset_id)
    assert (row.verdict, row.problem, row.is_interpreted) == (verdict, None, True)
    assert [verb.parts for verb in catalogue.reviews.verbs(loop.asset_id)] == [(0, 1)]
    assert len(catalogue.events(loop.asset_id, "interpreted")) == 1
    assert len(catalogue.labels.all()) == (state is AssetState.ACCEPTED)
    assert loop.pull() == []


def test_a_changed_mind_is_reopened_by_one_of_two_pulls(loop: Any) -> None:
    catalogue = loop.world.catalogue
    task = loop.push()
    loop.desk.client.answer(task.task_id, "reject", [])
    loop.pull()
    loop.desk.client.change(task.task_id, "accept", [])
    assert pull_overtaken(loop) == ([], [])
    assert catalogue.asset(loop.asset_id).state is AssetState.PROPOSED
    loop.push()
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED


def test_an_answer_that_cannot_be_read_is_still_told(loop: Any) -> None:
    task = loop.push()
    loop.desk.client.answer(task.task_id, "accept", [])
    broken = Broken(loop.world.store, "", lambda: None)
    (reply,) = pull_annotations(
        store=broken,
        catalogue=loop.world.catalogue,
        desk=loop.desk,
        settings=loop.world.settings.review,
    )
    assert reply.verdict is None and "cannot be read" in reply.note
