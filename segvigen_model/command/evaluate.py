"""`segvigen evaluate`: measure a checkpoint on a labelled folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from segvigen_model.command import terminal
from segvigen_model.command.options import check_choice, handle_errors, parse_numbers
from segvigen_model.errors import SegvigenError

SURFACES = ("as-is", "fused", "both")
MODES = ("interactive", "full", "guided", "error_clicks")
SPLITS = ("train", "validation", "heldout")
COMPARED = ("labels", "seed", "seeds")


# Every parameter is an option of the command.
def evaluate(
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Labelled folder.")],
    labels: Annotated[str, typer.Option(help="face_inst or face_part.")] = "face_inst",
    surface: Annotated[str, typer.Option(help="as-is, fused or both.")] = "as-is",
    mode: Annotated[str, typer.Option(help=",".join(MODES))] = "interactive,full",
    clicks: Annotated[str, typer.Option(help="Numbers of clicks.")] = "1,3,5,10",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many objects.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Name or folder.")] = "default",
    seed: Annotated[int, typer.Option(help="First seed of clicks and draws.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds, averaged.")] = 1,
    split: Annotated[str | None, typer.Option(help="train, validation or heldout.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; objects are shared out.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result here; - prints it.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier --json file: report what changed.")
    ] = None,
) -> None:
    """Measure a checkpoint on a labelled folder, beside geometric baselines."""
    if json_file not in (None, Path("-")) and not json_file.parent.is_dir():
        raise typer.BadParameter(f"{json_file.parent} is no folder", param_hint="--json")
    wanted: dict[str, Any] = {
        "labels": check_choice("--labels", labels, ("face_inst", "face_part")),
        "modes": tuple(check_choice("--mode", name, MODES) for name in mode.split(",")),
        "clicks": parse_numbers("--clicks", clicks),
        "split": None if split is None else check_choice("--split", split, SPLITS),
        "seed": seed,
        "seeds": seeds,
        "limit": limit,
        "workers": workers,
        "checkpoint": checkpoint,
    }
    regimes = [check_choice("--surface", surface, SURFACES)]
    regimes = list(SURFACES[:2]) if surface == "both" else regimes
    with handle_errors():
        from segvigen_model.evaluation.protocol import evaluate as measure

        earlier = {} if against is None else read_comparable(against, regimes, wanted)
        results = {regime: measure(data, surface=regime, **wanted) for regime in regimes}
    show_results(results, json_file, earlier)


def read_comparable(file: Path, regimes: list[str], wanted: dict[str, Any]) -> dict[str, Any]:
    """Earlier results of these regimes; refused before anything is measured."""
    from segvigen_model.evaluation.comparison import check_comparable, read_results

    found = read_results(file)
    for regime in regimes:
        if regime not in found:
            raise SegvigenError(
                f"{file} holds {' and '.join(found)}, not {regime}; choose the --surface it holds"
            )
        settings = {"surface": regime, **{name: wanted[name] for name in COMPARED}}
        check_comparable(found[regime], settings, max(wanted["clicks"]))
    return found


def show_results(
    results: dict[str, dict[str, Any]], json_file: Path | None, earlier: dict[str, Any]
) -> None:
    """Write JSON (one regime: its result; both: one each under its name) and tables."""
    from segvigen_model.evaluation.comparison import compare
    from segvigen_model.evaluation.tables import render_comparison, render_markdown

    changes = {name: compare(earlier[name], results[name]) for name in results if name in earlier}
    kept = {name: {**results[name]} for name in results}
    for name, comparison in changes.items():
        kept[name]["against"] = comparison.as_json()
    text = json.dumps(kept if len(kept) > 1 else next(iter(kept.values())), indent=1)
    if json_file == Path("-"):
        terminal.out.print_json(text)
        return
    if json_file is not None:
        json_file.write_text(text + "\n")
    for table in (render_markdown(results), *map(render_comparison, changes, changes.values())):
        terminal.out.print(table, markup=False, highlight=False, soft_wrap=True)
    for regime, result in results.items():
        for name, reasons in result["refusals"].items():
            for reason in reasons:
                terminal.err.print(
                    terminal.sanitize_text(f"{regime}: {name} refused: {reason}"), soft_wrap=True
                )
