"""`segvigen show`: all that is known of one asset, and its parts as a coloured GLB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows import console
from segvigen_model.errors import SegvigenError

if TYPE_CHECKING:
    from tasks.catalogue import AssetRow, Catalogue
    from tasks.storage.store import Store


class NoSuchAsset(SegvigenError):
    """What was asked for is no asset, or several, or has no labels."""


def find_asset(catalogue: Catalogue, asset: str) -> AssetRow:
    """The asset whose id begins so, or whose file has this name.

    Raises:
        NoSuchAsset: none or several.
    """
    rows = catalogue.assets()
    found = [row for row in rows if row.asset_id.startswith(asset)]
    found = found or [row for row in rows if row.name == asset]
    if len(found) != 1:
        which = ", ".join(row.asset_id[:12] for row in found[:5])
        raise NoSuchAsset(
            f"{len(found)} assets begin with {asset[:64]!r} or have that name"
            f"{f' ({which})' if which else ''}; `segvigen status --json` lists what there is"
        )
    return found[0]


def read_asset(catalogue: Catalogue, asset: AssetRow) -> dict[str, Any]:
    """The asset's row, raw objects, rounds, answers, label sets and history; JSON-able."""
    asset_id = asset.asset_id
    answers = catalogue.reviews.annotations(asset_id)
    return {
        "asset": {**asdict(asset), "state": str(asset.state)},
        "raw_objects": [row.key for row in catalogue.raw.all(asset_id)],
        "rounds": [asdict(row) for row in catalogue.proposals(asset_id)],
        "tasks": [asdict(row) for row in catalogue.reviews.tasks(asset_id)],
        "answers": [{k: v for k, v in asdict(row).items() if k != "raw"} for row in answers],
        "clicks": len(catalogue.reviews.clicks(asset_id)),
        "label_sets": [asdict(row) for row in catalogue.labels.all(asset_id)],
        "events": [asdict(row) for row in catalogue.events(asset_id)],
    }


def show_asset(told: Mapping[str, Any]) -> None:
    """Print `read_asset` for people."""
    asset = told["asset"]
    about = console.table(f"Asset {asset['asset_id'][:12]}", "what", "")
    where = f"{asset['state']}, round {asset['round']}"
    rows = {
        "name": asset["name"],
        "state": where,
        "faces": asset["num_faces"],
        "licence": asset["licence"],
        "why it is parked": " ".join(filter(None, (asset["reason"], asset["detail"]))),
        "last error": asset["last_error"],
        "raw objects": "\n".join(told["raw_objects"]),
        "source": asset["source_key"],
        "encoding": asset["encoding_key"],
    }
    for what, value in rows.items():
        if value:
            about.add_row(what, console.plain(str(value)))
    console.out.print(about)
    rounds = console.table("Rounds", "round", "made", "parts", "confidence", "blob")
    for row in told["rounds"]:
        numbers = (str(row["num_parts"]), f"{row['confidence']:.2f}")
        rounds.add_row(str(row["round"]), _time(row["created_at"]), *numbers, row["key"])
    console.out.print(rounds)
    answers = console.table("Answers", "round", "when", "reviewer", "verdict", "note or problem")
    for row in told["answers"]:
        words = " / ".join(filter(None, (row["note"], row["problem"])))
        who = console.plain(row["reviewer"])
        answers.add_row(
            str(row["round"]),
            row["updated_at"][:16],
            who,
            row["verdict"] or "-",
            console.plain(words),
        )
    console.out.print(answers)
    labels = console.table("Label sets", "id", "made", "parts", "clicks", "by", "blob")
    for row in told["label_sets"]:
        numbers = (str(row["num_parts"]), str(row["num_clicks"]))
        who = console.plain(row["decided_by"])
        labels.add_row(row["label_id"], _time(row["created_at"]), *numbers, who, row["key"])
    console.out.print(labels)


def parts_glb(store: Store, catalogue: Catalogue, asset: AssetRow) -> bytes:
    """The asset coloured by its accepted parts, or by its newest proposal's.

    Raises:
        NoSuchAsset: it has neither.
    """
    from segvigen_model.mesh.io import save_glb
    from tasks.labelling.label_sets import load_label_set
    from tasks.labelling.loading import load_asset_mesh, load_proposal

    held = catalogue.labels.latest(asset.asset_id)
    row = catalogue.latest_proposal(asset.asset_id)
    if held is not None:
        labels = load_label_set(store, held).face_labels
    elif row is not None:
        labels = load_proposal(store, row).face_labels
    else:
        raise NoSuchAsset(f"{asset.asset_id[:12]} has no parts yet, it is {asset.state}")
    return save_glb(load_asset_mesh(store, asset), labels)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
