"""Two runs of `evaluate`, object by object: did a change help, and how surely.

The same objects with the same clicks stand on both sides, so that what makes one object harder than
another drops out: such an interval is far narrower than those of the two means.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segvigen_model.datasets.labelled_folder import SURFACES
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.bootstrap import ObjectMeans, nest_values

Result = Mapping[str, Any]
Key = tuple[str, int]  # name of an object, and which of that name

UNJUDGED = ("seconds", "baselines")  # a clock, and what no checkpoint changes


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of both runs, over the objects in both.

    Attributes:
        before: mean of the earlier run.
        now: mean of this run.
        interval: 95 % of now - before, paired by object; None where only one object is in both.
    """

    before: float
    now: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """How far this run lies above the earlier one."""
        return self.now - self.before


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two runs measured together.

    Attributes:
        changes: "interactive|iou@1" and the like -> both runs.
        objects: how many are in both, measured alike.
        left_out: objects that only one run measured, or that have other parts now.
    """

    changes: Mapping[str, Change]
    objects: int
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """The same as nested numbers."""
        changes = {
            name: {**asdict(change), "difference": change.difference}
            for name, change in self.changes.items()
        }
        return {**nest_values(changes), "objects": self.objects, "left_out": self.left_out}


def read_results(file: Path) -> dict[str, Result]:
    """What `segvigen evaluate --json` wrote: surface -> result, whether it holds one or both.

    Raises:
        SegvigenError: not such a file.
    """
    try:
        results = json.loads(file.read_text())
    except (OSError, ValueError) as err:
        raise SegvigenError(f"results file={file} cannot be read: {err}") from err
    if isinstance(results, Mapping):
        if results.get("surface") in SURFACES:
            return {str(results["surface"]): results}
        found = {name: results[name] for name in SURFACES if isinstance(results.get(name), Mapping)}
        if found:
            return found
    raise SegvigenError(
        f"results file={file} holds no result; give what `segvigen evaluate --json` wrote"
    )


def check_comparable(before: Result, settings: Mapping[str, Any], most_clicks: int) -> None:
    """Check that a run with these settings asks the questions of an earlier one.

    Args:
        before: the earlier run.
        settings: of the run to come; surface, labels, seed, seeds.
        most_clicks: the largest number of clicks; the places of all clicks hang on it.

    Raises:
        SegvigenError: other questions, or the earlier run kept no numbers of single objects.
    """
    if not before.get("by_object"):
        raise SegvigenError(
            "the earlier result has no by_object, so that nothing can be paired; measure it again"
        )
    earlier = {name: before.get(name) for name in settings}
    measured_clicks = [int(name.split("@")[1]) for name in before.get("interactive", {})]
    if measured_clicks:
        earlier, settings = earlier | {"clicks up to": max(measured_clicks)}, dict(settings)
        settings["clicks up to"] = most_clicks
    for name, value in settings.items():
        if earlier[name] != value:
            raise SegvigenError(
                f"the earlier result has {name}={earlier[name]}, this run has {name}={value}: "
                "other questions; give both the same"
            )


def compare(before: Result, now: Result, seed: int = 0) -> Comparison:
    """Pair two results; `check_comparable` says whether that means anything."""
    old, new = _collect_numbers(before), _collect_numbers(now)
    pairs = [
        (old[key], new[key]) for key in new if key in old and _have_equal_counts(old[key], new[key])
    ]
    table = ObjectMeans(
        [
            {f"{side}|{name}": row[name] for side, row in (("old", a), ("new", b)) for name in row}
            for a, b in pairs
        ],
        seed,
    )
    changes = {}
    for name in dict.fromkeys(name for a, b in pairs for name in a if name in b):
        means = table.compute_mean(f"old|{name}"), table.compute_mean(f"new|{name}")
        _, interval = table.compute_difference(f"new|{name}", f"old|{name}")
        changes[name] = Change(*means, interval if len(pairs) > 1 else None)
    return Comparison(changes, len(pairs), len(old) + len(new) - 2 * len(pairs))


def _collect_numbers(result: Result) -> dict[Key, dict[str, Sequence[float]]]:
    """Every judged number: object -> "kind|measure" -> one a part or seed."""
    seen: Counter[str] = Counter()
    found = {}
    for row in result["by_object"]:
        name = str(row["object"])
        found[(name, seen[name])] = dict(_flatten_row(row))
        seen[name] += 1
    return found


def _flatten_row(row: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[float]]]:
    for kind, metrics in row.items():
        if kind not in UNJUDGED and isinstance(metrics, Mapping):
            for name, values in metrics.items():
                yield f"{kind}|{name}", values


def _have_equal_counts(
    old: Mapping[str, Sequence[float]], new: Mapping[str, Sequence[float]]
) -> bool:
    """Whether all that both measured has as many numbers, hence parts."""
    common = old.keys() & new.keys()
    return bool(common) and all(len(old[name]) == len(new[name]) for name in common)
