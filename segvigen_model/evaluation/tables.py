"""Results of `evaluate` as Markdown: both regimes side by side, every baseline, two runs.

Only formatting: a number that a result does not hold is left out, nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segvigen_model.evaluation.bootstrap import nest_values
from segvigen_model.evaluation.comparison import Comparison
from segvigen_model.evaluation.protocol import MAX_ERROR_CLICKS

Result = Mapping[str, Any]

NONE = "-"
TITLES = {
    "full|miou_matched": "full, one-to-one mIoU",
    "full|miou_best": "full, best-match mIoU",
    "full|boundary_f1": "full, border F1",
    "guided|miou_matched": "guided by an oracle view, one-to-one",
    "guided|miou_best": "guided by an oracle view, best-match",
    "error_clicks|clicks_to_0.8": f"error clicks to 0.8 ({MAX_ERROR_CLICKS + 1} = never)",
    "error_clicks|clicks_to_0.9": f"error clicks to 0.9 ({MAX_ERROR_CLICKS + 1} = never)",
    "error_clicks|share_to_0.8": f"parts at 0.8 within {MAX_ERROR_CLICKS} error clicks",
    "error_clicks|share_to_0.9": f"parts at 0.9 within {MAX_ERROR_CLICKS} error clicks",
}
CALLS = {"encode": "encode", "click": "a click", "full": "full", "guided": "guided"}
IDENTITY = {
    "patch_network": "patch network",
    "mask_choice": "mask selector",
    "config": "configuration",
}


def render_markdown(results: Mapping[str, Result]) -> str:
    """Everything that people read of one or more results.

    Args:
        results: heading ("as-is", "fused") -> what `evaluate` returned.
    """
    blocks = [render_headline(results)]
    blocks += [f"{name}: {describe_run(result)}" for name, result in results.items()]
    blocks += [
        f"Every baseline, {name}:\n\n{render_baseline_table(result)}"
        for name, result in results.items()
        if result.get("baselines")
    ]
    return "\n\n".join(blocks) + "\n"


def render_headline(results: Mapping[str, Result]) -> str:
    """One line per measure; segmenter, best baseline and margin of each result."""
    head = ["measure"]
    for name in results:
        head += [f"{name}: segmenter", f"{name}: best baseline", f"{name}: margin"]
    rows = []
    for path in list_metrics(results.values()):
        cells = [cell for result in results.values() for cell in format_three_cells(result, path)]
        rows.append([format_title(path), *cells])
    return render_table(head, rows)


def list_metrics(results: Iterable[Result]) -> list[str]:
    """Paths of all measures that any of the results has: clicks first, in order of number."""
    results = list(results)
    clicks = {name for result in results for name in result.get("interactive", {})}
    errors = {name for result in results for name in result.get("error_clicks", {})}
    named = [
        path for path in TITLES if any(look_up(result, path) is not None for result in results)
    ]
    by_number = sorted(clicks, key=_parse_number)
    by_error = sorted((name for name in errors if name.startswith("iou@")), key=_parse_number)
    return [f"interactive|{n}" for n in by_number] + named + [f"error_clicks|{n}" for n in by_error]


def format_three_cells(result: Result, path: str) -> tuple[str, str, str]:
    """Segmenter, best baseline, margin."""
    value, margin = look_up(result, path), look_up(result.get("margins", {}), path)
    own = (
        NONE if value is None else format_number(value, look_up(result.get("intervals", {}), path))
    )
    if margin is None:
        return own, NONE, NONE
    bar = value - margin["difference"]
    gain = format_number(margin["difference"], margin["interval"], sign="+")
    return own, f"{bar:.3f} {margin['baseline']}", gain


def render_baseline_table(result: Result) -> str:
    """One line per method, one column per measure, means only."""
    rows = {"**segmenter**": {**result.get("interactive", {}), **result.get("full", {})}}
    rows |= result["baselines"]
    names = {name for values in rows.values() for name in values if name != "confidence"}
    clicks = sorted((name for name in names if name.startswith("iou@")), key=_parse_number)
    columns = [*clicks, *sorted(names - set(clicks), reverse=True)]
    lines = [
        [name, *(f"{values[c]:.3f}" if c in values else NONE for c in columns)]
        for name, values in rows.items()
    ]
    return render_table(["method", *columns], lines)


def render_comparison(name: str, comparison: Comparison) -> str:
    """One line per measure: the earlier run, this one, the difference with its interval."""
    rows = []
    for path in list_metrics([nest_values(dict(comparison.changes))]):
        change = comparison.changes[path]
        gain = format_number(change.difference, change.interval, sign="+")
        rows.append([format_title(path), f"{change.before:.3f}", f"{change.now:.3f}", gain])
    same = f"{comparison.objects} objects in both runs, {comparison.left_out} in one only"
    return f"{name}, {same}:\n\n{render_table(['measure', 'before', 'now', 'difference'], rows)}\n"


def describe_run(result: Result) -> str:
    """What was measured, how often, how fast, and what was refused."""
    seconds = result.get("seconds", {})
    calls = [f"{text} {seconds[name]:.2f} s" for name, text in CALLS.items() if name in seconds]
    return "; ".join(
        [
            f"{result['objects']} objects, {result['parts']} parts, {result['labels']}",
            f"{result['seeds']} seed(s) from {result['seed']}",
            f"{result['refused']} refused",
            f"checkpoint {str(result['checkpoint'])[:12]}",
            *(f"{text} {result[key][:12]}" for key, text in IDENTITY.items() if result.get(key)),
            *calls,
        ]
    )


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, columns padded so that it also reads well as it is."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def format_number(value: float, interval: Sequence[float] | None, sign: str = "") -> str:
    """A mean with its interval."""
    text = f"{value:{sign}.3f}"
    if interval is None:
        return text
    return f"{text} [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


def format_title(path: str) -> str:
    """A measure in words."""
    kind, name = path.split("|")
    if path in TITLES:
        return TITLES[path]
    return f"IoU@{_parse_number(name)}" + (" by error clicks" if kind == "error_clicks" else "")


def look_up(tree: Any, path: str) -> Any:
    """What stands under a path, or None."""
    for step in path.split("|"):
        if not isinstance(tree, Mapping) or step not in tree:
            return None
        tree = tree[step]
    return tree


def _parse_number(name: str) -> int:
    return int(name.split("@")[1])
