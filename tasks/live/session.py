"""What a live answer needs of one review task, and the model that gives it.

Proposal, clicks, commands, seed and checkpoint are those of the round's refinement: a reviewer sees
what the next round will hold. Nothing is written but an encoding that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segvigen_model.errors import SegvigenError
from segvigen_model.types import AssetMesh, Click, ClickKind, Proposal
from tasks.catalogue import AssetRow, AssetState, ProposalRow
from tasks.labelling.loading import load_asset_mesh, load_proposal
from tasks.labelling.rounds import collect_edits
from tasks.labelling.segmenter import Segmenter, Session
from tasks.live.click_history import Result
from tasks.rendering.pixel_buffers import Buffers, buffers_from_bytes
from tasks.review.annotations import ParsedAnnotation, PointedClick, parse_annotation
from tasks.review.fence import Unreadable, split_key
from tasks.stages.encode import open_session
from tasks.workspace import Workspace


class UnknownTask(SegvigenError):
    """A task that this pipeline did not push."""


class TaskClosed(SegvigenError):
    """A task whose round is over."""


class UnusableClicks(SegvigenError):
    """None of the clicks can be used; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class LiveAsset:
    """A task in memory.

    Attributes:
        asset: its row when it was loaded.
        mesh: what clicks are located on.
        session: the mesh, opened with the model.
        shown: the proposal that the reviewer sees.
        buffers: of the sheet.
    """

    asset: AssetRow
    mesh: AssetMesh
    session: Session
    shown: Proposal
    buffers: Buffers


class LiveSession:
    """Review tasks and the model.

    Args:
        workspace: blobs, state, and the seed of the settings.
        segmenter: loaded.
    """

    def __init__(self, workspace: Workspace, segmenter: Segmenter) -> None:
        self._workspace, self.segmenter = workspace, segmenter
        self._store, self._catalogue = workspace.store, workspace.catalogue

    def check_open(self, key: str) -> AssetRow:
        """The asset of a task that is open.

        Raises:
            UnknownTask: no such task was ever pushed, or not by this pipeline.
            TaskClosed: it was, and its round is over.
        """
        try:
            asset_id, round_ = split_key(key)
            asset = self._catalogue.find_asset(asset_id)
        except Unreadable:
            asset, round_ = None, 0
        if asset is None or round_ > asset.round:
            raise UnknownTask(
                f"task {key[:80]!a} is not of this pipeline; open it from its project"
            )
        if round_ < asset.round or asset.state is not AssetState.IN_REVIEW:
            message = f"task {key[:12]} round {round_} is over"
            raise TaskClosed(
                f"{message}: the asset is {asset.state} in round {asset.round}; take the next task"
            )
        return asset

    def get_proposal(self, key: str, shown: str = "") -> ProposalRow:
        """The proposal of a task that is open.

        Args:
            key: of the task.
            shown: sha256 of the proposal that the reviewer sees; "" = not known.

        Raises:
            UnknownTask, TaskClosed: as `check`; or the round was proposed again since.
        """
        asset = self.check_open(key)
        proposal = self._catalogue.get_proposal(asset.asset_id, asset.round)
        if proposal is None:
            raise UnknownTask(f"task {key[:80]!r} is not recorded yet; click again in a minute")
        if shown and shown != proposal.sha256:
            raise TaskClosed(
                f"task {key[:12]} round {asset.round} was proposed again; answer its new task"
            )
        return proposal

    def load(self, key: str, shown: str = "") -> LiveAsset:
        """Bring a task into memory and its geometry with it; arguments as for `proposal`."""
        proposal = self.get_proposal(key, shown)
        asset = self.check_open(key)
        task = self._catalogue.reviews.get_task(asset.asset_id, asset.round)
        if task is None:
            raise UnknownTask(f"task {key[:80]!r} is not recorded yet; click again in a minute")
        mesh = load_asset_mesh(self._store, asset)
        session = open_session(self._workspace, asset, mesh, self.segmenter)
        partition = load_proposal(self._store, proposal)
        buffers = buffers_from_bytes(self._store.get(task.buffers_key))
        session.prepare()
        return LiveAsset(asset, mesh, session, partition, buffers)

    def refine(self, asset: LiveAsset, instructions: ParsedAnnotation) -> Proposal:
        """The partition after merges, splits and clicks."""
        return asset.session.refine(
            asset.shown,
            [make_model_click(click) for click in instructions.clicks],
            seed=self._workspace.settings.model.seed,
            edits=collect_edits(instructions.commands),
        )

    @staticmethod
    def find_part(refined: Proposal, click: PointedClick) -> int:
        """Id of the part that a click speaks of, in the refined partition; -1 if it is gone."""
        if click.is_positive or click.meaning.kind is not ClickKind.BELONGS:
            return int(refined.face_labels[click.face])
        return refined.refinement.id_map.get(click.meaning.part, -1)


def parse_instructions(
    asset: LiveAsset, clicks: Sequence[Result], lines: Sequence[Result], max_clicks: int
) -> ParsedAnnotation:
    """Understand clicks and command lines exactly as the pull will.

    Args:
        asset: the task.
        clicks: raw results, in the order made.
        lines: raw results that hold command lines.
        max_clicks: the first so many usable ones count (SEGVIGEN_REVIEW_MAX_CLICKS).

    Raises:
        UnusableClicks: not one click can be used.
    """
    annotation = {"result": [*clicks, *lines]}
    parsed = parse_annotation(
        annotation, asset.buffers, lambda: asset.mesh.triangles, max_clicks=max_clicks
    )
    if clicks and not parsed.clicks:
        raise UnusableClicks("; ".join(parsed.problems) + "; click on the object")
    return parsed


def make_model_click(click: PointedClick) -> Click:
    """The model's form of a click."""
    return Click(
        face=click.face,
        xyz=click.xyz,
        kind=click.meaning.kind,
        part=click.meaning.part,
        group=click.meaning.group,
        is_positive=click.is_positive,
    )
