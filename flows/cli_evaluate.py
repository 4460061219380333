"""`segvigen evaluate`: measure a checkpoint on a labelled folder, both regimes if asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_view as view
from flows.cli_options import errors_told, numbers, one_of

SURFACES = ("as-is", "fused", "both")
MODES = ("interactive", "full", "guided", "error_clicks")
SPLITS = ("train", "validation", "heldout")


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
) -> None:
    """Measure a checkpoint on a labelled folder, beside geometric baselines."""
    wanted: dict[str, Any] = {
        "labels": one_of("--labels", labels, ("face_inst", "face_part")),
        "modes": tuple(one_of("--mode", name, MODES) for name in mode.split(",")),
        "clicks": numbers("--clicks", clicks),
        "split": None if split is None else one_of("--split", split, SPLITS),
        "seed": seed,
        "seeds": seeds,
        "limit": limit,
        "workers": workers,
        "checkpoint": checkpoint,
    }
    regimes = [one_of("--surface", surface, SURFACES)]
    regimes = list(SURFACES[:2]) if surface == "both" else regimes
    with errors_told():
        from segvigen_model.evaluate import evaluate as measure

        results = {regime: measure(data, surface=regime, **wanted) for regime in regimes}
    show(results, json_file)


def show(results: dict[str, dict[str, Any]], json_file: Path | None) -> None:
    """Write JSON (one regime: its result; both: one each under its name) and tables."""
    from segvigen_model.evaluation_tables import markdown

    text = json.dumps(results if len(results) > 1 else next(iter(results.values())), indent=1)
    if json_file == Path("-"):
        view.out.print_json(text)
        return
    if json_file is not None:
        json_file.write_text(text + "\n")
    view.out.print(markdown(results), markup=False, highlight=False, soft_wrap=True)
    for regime, result in results.items():
        for name, reasons in result["refusals"].items():
            for reason in reasons:
                view.err.print(view.plain(f"{regime}: {name} refused: {reason}"), soft_wrap=True)
