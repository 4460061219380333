"""Whether a tuned checkpoint may take the place of the one that it began with.

Both answer the same questions about objects that neither was trained on. A gain on the data must
not be paid for elsewhere: shapes made in code are the regression set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segvigen_model.datasets.labelled_folder import choose_rows
from segvigen_model.datasets.synthetic_pack import write_pack
from segvigen_model.evaluation.comparison import Comparison, compare
from segvigen_model.evaluation.protocol import evaluate

CLICKS = (1, 3, 10)
FULL = "full|miou_matched"
MIN_OBJECTS = 5  # held out; fewer say nothing
TOLERANCE = 0.01  # IoU that one measure may lose while others gain
REGRESSION_OBJECTS = 8
OBJECTS_A_PROCESS = 4  # fewer are measured before another process has loaded

Checkpoints = tuple[str | Path, str | Path]  # before, after


@dataclass(frozen=True, slots=True)
class PromotionVerdict:
    """What the comparison comes to.

    Attributes:
        is_better: the tuned checkpoint may be used.
        reason: why, or why not, for people.
        own: on held-out objects of the data, before and after.
        regression: on shapes made in code.
    """

    is_better: bool
    reason: str
    own: Comparison
    regression: Comparison

    def as_json(self) -> dict[str, Any]:
        """The same, JSON-able."""
        report = {"is_better": self.is_better, "reason": self.reason}
        return {**report, "own": self.own.as_json(), "regression": self.regression.as_json()}


# The options of an evaluation, by name, beside what is judged.
def judge_promotion(
    data: Path,
    regression_set: Path,
    checkpoints: Checkpoints,
    *,
    surface: str = "as-is",
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> PromotionVerdict:
    """Ask both checkpoints the same questions.

    Args:
        data: labelled folder; its held-out objects count.
        regression_set: folder for shapes made in code, written when absent.
        checkpoints: before and after, folders or shipped names.
        surface: of the data, "as-is" or "fused"; the guards are fused.
        limit: held-out objects at most.
        seed: of clicks and draws.
        workers: processes.
    """
    if not (regression_set / "manifest.jsonl").exists():
        write_pack(regression_set, split="train", each=1, most=REGRESSION_OBJECTS)

    def compare_checkpoints(
        folder: Path, split: str | None, shown: str, most: int | None, modes: tuple[str, ...]
    ) -> Comparison:
        number = len(choose_rows(folder, split, most))
        before, after = (
            evaluate(
                folder,
                split=split,
                surface=shown,
                limit=most,
                modes=modes,
                clicks=CLICKS,
                checkpoint=which,
                seed=seed,
                workers=max(1, min(workers, number // OBJECTS_A_PROCESS)),
            )
            for which in checkpoints
        )
        return compare(before, after, seed)

    own = compare_checkpoints(data, "heldout", surface, limit, ("interactive", "full"))
    return decide_promotion(
        own, compare_checkpoints(regression_set, None, "fused", None, ("interactive",))
    )


def decide_promotion(own: Comparison, regression: Comparison) -> PromotionVerdict:
    """Better where it counts, hardly by chance, and nowhere worse by more than `TOLERANCE`."""
    gains = {"clicks": _average_click_gain(own), "proposals": _measure_gain(own, FULL)}
    everything = {**gains, "clicks on shapes made in code": _average_click_gain(regression)}
    text = ", ".join(f"{name} {gain:+.3f}" for name, gain in everything.items())
    most = max(gains, key=lambda name: gains[name])
    lowest = {
        "clicks": _average_click_gain(own, at_least=True),
        "proposals": _measure_gain(own, FULL, at_least=True),
    }
    worse = [name for name, gain in everything.items() if gain < -TOLERANCE]
    is_better = False
    if own.objects < MIN_OBJECTS:
        reason = f"{own.objects} held-out objects say nothing, {MIN_OBJECTS} would: {text}"
    elif worse:
        reason = f"{' and '.join(worse)} lost more than {TOLERANCE}: {text}"
    elif sum(gains.values()) <= 0:
        reason = f"held-out objects gained nothing: {text}"
    elif lowest[most] < -TOLERANCE:
        reason = (
            f"the gain of {most} may be chance, its interval begins at {lowest[most]:+.3f}: {text}"
        )
    else:
        is_better, reason = True, f"better on {own.objects} held-out objects: {text}"
    return PromotionVerdict(is_better, reason, own, regression)


def _average_click_gain(comparison: Comparison, at_least: bool = False) -> float:
    """Mean over the numbers of clicks; of the intervals' lower ends with `at_least`."""
    gains = [_measure_gain(comparison, f"interactive|iou@{count}", at_least) for count in CLICKS]
    return sum(gains) / len(gains)


def _measure_gain(comparison: Comparison, name: str, at_least: bool = False) -> float:
    """How much one measure gained; the lower end of the interval with `at_least`."""
    change = comparison.changes.get(name)
    if change is None:
        return 0.0
    return change.interval[0] if at_least and change.interval else change.difference
