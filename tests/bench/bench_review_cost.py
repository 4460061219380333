"""What a review costs: a simulated person's actions and rounds until the parts are right.

    python tests/bench/bench_review_cost.py [--objects N] [--json FILE] [--shared FOLDER]

Shapes that training never saw: procedural categories made in code, and the held-out sources of
`../shared/data/parts`, as they are and fused to a single shell. One action is one click or one
merge. Prints a Markdown table; asserts nothing. The same seed gives the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.datasets.voxel_samples import (
    list_procedural_categories,
    load_labelled,
    read_pack_rows,
)
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.metrics import compute_miou_matched
from segvigen_model.evaluation.simulated_review import (
    TARGETS,
    PersonRules,
    ReviewCost,
    simulate_review,
)
from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh, IntArray, RefinementState

SHARED = Path(__file__).resolve().parents[3] / "shared"
WITHIN = (10, 20)
FIRST_SEED = 1000  # of procedural shapes; training counts up from 0

Labelled = tuple[str, AssetMesh, IntArray]


def make_procedural(count: int) -> Iterator[Labelled]:
    categories = list_procedural_categories(split="heldout")
    for number in range(count):
        category = categories[number % len(categories)]
        made = make_asset(category, FIRST_SEED + number // len(categories))
        yield f"{category}-{number}", made.mesh, made.face_labels


def load_packed(folder: Path, count: int, is_fused: bool) -> Iterator[Labelled]:
    rows = [row for row in read_pack_rows(folder, split="heldout") if 2 <= row["n_inst"] <= 30]
    rows = [row for row in rows if row["n_faces"] <= 40_000]
    for index in np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int):
        mesh, labels = load_labelled(folder, rows[index])
        if is_fused:
            mesh, labels = fuse_mesh(mesh, labels)
        yield str(rows[index]["id"]), mesh, labels


def measure(
    name: str, objects: Iterator[Labelled], segmenter: Segmenter, rules: PersonRules, seed: int
) -> dict[str, Any]:
    costs: list[ReviewCost] = []
    rows: list[dict[str, Any]] = []
    for object_name, mesh, truth in objects:
        begin = time.perf_counter()
        try:
            session = segmenter.open(mesh)
            proposal = session.propose(seed=seed)
        except SegvigenError as err:
            print(f"{name}: {object_name} refused: {err}")
            continue
        surface = measure_surface(mesh)
        cost = simulate_review(
            proposal.face_labels,
            truth,
            surface,
            lambda labels, clicks, anchors, session=session: session.refine(
                labels, clicks, seed, state=RefinementState(anchor_faces=tuple(anchors))
            ),
            rules,
        )
        costs.append(cost)
        rows.append(
            {
                "object": object_name,
                "parts": [{"part": part, **asdict(mine)} for part, mine in cost.parts.items()],
                "rounds": cost.rounds,
                "kinds": cost.kinds,
                "iou_before": compute_miou_matched(proposal.face_labels, truth, surface.areas),
                "iou_after": compute_miou_matched(cost.labels, truth, surface.areas),
                "seconds": round(time.perf_counter() - begin, 1),
            }
        )
    return {"set": name, "summary": summarize(costs, rows, rules), "objects": rows}


def summarize(
    costs: Sequence[ReviewCost], rows: Sequence[dict[str, Any]], rules: PersonRules
) -> dict[str, Any]:
    parts = [part for cost in costs for part in cost.parts.values()]
    kinds = sorted({kind for cost in costs for kind in cost.kinds})
    rows_of_text: dict[str, Any] = {
        "objects": len(costs),
        "parts": len(parts),
        "iou_before": compute_mean([row["iou_before"] for row in rows]),
        "iou_after": compute_mean([row["iou_after"] for row in rows]),
        "actions_per_object": compute_mean([sum(cost.kinds.values()) for cost in costs]),
        "rounds_per_object": compute_mean([cost.rounds for cost in costs]),
        "kinds": {kind: sum(cost.kinds.get(kind, 0) for cost in costs) for kind in kinds},
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }
    for target in TARGETS:
        reached = [part.reached[target] for part in parts if target in part.reached]
        # A part that is never reached counts the limit: leaving it out would flatter.
        actions = [part.reached.get(target, (rules.max_actions, 0))[0] for part in parts]
        rows_of_text[f"to_{target}"] = {
            "at_once": compute_share(
                [target in p.reached and p.reached[target][1] == 0 for p in parts]
            ),
            "actions": compute_mean(actions),
            "rounds": compute_mean([rounds for _, rounds in reached]),
            "reached": len(reached) / max(len(parts), 1),
            **{
                f"within_{limit}": compute_share(
                    [target in p.reached and p.reached[target][0] <= limit for p in parts]
                )
                for limit in WITHIN
            },
        }
    return rows_of_text


def compute_mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 3) if len(values) else 0.0


def compute_share(values: Sequence[bool]) -> float:
    return compute_mean([float(value) for value in values])


def render_markdown(sets: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| set | objects | parts | mIoU proposed | mIoU corrected | target | right at once "
        "| actions a part | rounds | within 10 | within 20 | actions an object |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sets:
        rows_of_text = row["summary"]
        for target in TARGETS:
            cost = rows_of_text[f"to_{target}"]
            lines.append(
                f"| {row['set']} | {rows_of_text['objects']} | {rows_of_text['parts']} "
                f"| {rows_of_text['iou_before']:.2f} | {rows_of_text['iou_after']:.2f} | {target} "
                f"| {cost['at_once']:.0%} | {cost['actions']:.2f} | {cost['rounds']:.1f} "
                f"| {cost['within_10']:.0%} | {cost['within_20']:.0%} "
                f"| {rows_of_text['actions_per_object']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="default", help="name, folder, or tiny")
    parser.add_argument("--objects", type=int, default=5, help="of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--actions-per-round", type=int, default=4)
    parser.add_argument("--max-rounds", type=int, default=12)
    default = Path(os.environ.get("SEGVIGEN_SHARED", SHARED))
    parser.add_argument("--shared", type=Path, default=default)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    name = options.checkpoint
    segmenter = (
        Segmenter(build_model("tiny")) if name == "tiny" else Segmenter.from_checkpoint(name)
    )
    rules = PersonRules(options.actions_per_round, options.max_rounds)
    sources = {"procedural, unseen categories": make_procedural(options.objects)}
    pack = options.shared / "data" / "parts"
    if pack.is_dir():
        sources["parts, unseen sources, as is"] = load_packed(pack, options.objects, False)
        sources["parts, unseen sources, fused"] = load_packed(pack, options.objects, True)
    sets = []
    for title, objects in sources.items():
        sets.append(measure(title, objects, segmenter, rules, options.seed))
        print(title, json.dumps(sets[-1]["summary"]), flush=True)
    print(
        f"\ncheckpoint {segmenter.checkpoint[:12]}, seed {options.seed}\n\n{render_markdown(sets)}"
    )
    if options.json:
        rows_of_text = {
            "checkpoint": segmenter.checkpoint,
            "seed": options.seed,
            "rules": asdict(rules),
        }
        options.json.write_text(json.dumps({**rows_of_text, "sets": sets}, indent=1) + "\n")


if __name__ == "__main__":
    main()
