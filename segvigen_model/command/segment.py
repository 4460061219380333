"""`segvigen segment FILE`: the parts of one mesh, without a stack, a catalogue or Prefect."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segvigen_model.command import terminal
from segvigen_model.command.clicks import (
    CLICK_FORMS,
    BadClicks,
    PointClick,
    are_corrections,
    parse_clicks,
)
from segvigen_model.command.options import check_choice, check_output, handle_errors
from segvigen_model.errors import NotReady, SegvigenError

if TYPE_CHECKING:
    from segvigen_model.command.parts import Parts

GRANULARITIES = ("coarse", "medium", "fine")
LABEL_FORMATS = (".npz", ".parquet", ".json")
STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write; None = not requested."""

    glb: Path | None
    painted: Path | None
    labels: Path | None
    json_file: Path | None
    picture: Path | None

    def check(self, source: Path) -> None:
        """Refuse what could not be written, or would replace the input."""
        check_output("--out", self.glb, ".glb")
        check_output("--painted", self.painted, ".glb")
        check_output("--labels", self.labels, *LABEL_FORMATS)
        check_output("--json", self.json_file, ".json")
        check_output("--picture", self.picture, ".png")
        for option, file in (("--out", self.glb), ("--painted", self.painted)):
            if file is not None and file.resolve() == source.resolve():
                raise typer.BadParameter(f"{file} is the input", param_hint=option)

    def write(self, parts: Parts, name: str, seconds: float) -> None:
        """Write every file, then print the JSON, or the table and the files."""
        from segvigen_model.command.parts import to_json, write_glb, write_labels, write_picture

        files: dict[Path, str] = {}
        try:
            if self.glb is not None:
                write_glb(parts, self.glb, is_painted=False)
                files[self.glb] = "one node per part, the file's own materials"
            if self.painted is not None:
                write_glb(parts, self.painted, is_painted=True)
                files[self.painted] = "one node per part, in its colour"
            if self.labels is not None:
                files[self.labels] = write_labels(parts, self.labels)
            if self.json_file not in (None, STDOUT):
                self.json_file.write_text(to_json(parts) + "\n")
                files[self.json_file] = "parts, face_labels"
            if self.picture is not None:
                write_picture(parts, self.picture)
                files[self.picture] = "four views"
        except OSError as err:
            raise SegvigenError(f"cannot write {err.filename}: {err.strerror}") from err
        if self.json_file == STDOUT:
            typer.echo(to_json(parts))
            return
        show_parts(name, parts)
        for file, content in files.items():
            terminal.out.print(f"{terminal.sanitize_text(str(file))}: {content}", soft_wrap=True)
        terminal.out.print(f"{seconds:.1f} s")


# More than five parameters: one an option.
def segment(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="GLB, glTF, OBJ, PLY, STL, OFF, FBX, 3MF, USD or ZIP."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="GLB to write: a node per part, with the file's own materials."),
    ] = None,
    painted: Annotated[
        Path | None, typer.Option(help="GLB to write: a node per part, in its colour.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels to write, by the name: .npz, .parquet or .json.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Parts and labels as JSON; - prints them.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG to write: four views.")] = None,
    clicks: Annotated[str | None, typer.Option(help=CLICK_FORMS)] = None,
    granularity: Annotated[str, typer.Option(help=", ".join(GRANULARITIES))] = "medium",
    checkpoint: Annotated[str, typer.Option(help="Name or folder.")] = "default",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Find the parts of one mesh, or the one part that clicks select.

    Clicks use the coordinates of the file. Points alone select one part.
    Clicks that name a part of the table correct the parts.
    Without --out and --painted both are written: NAME-parts.glb and NAME-painted.glb, here.
    """
    check_choice("--granularity", granularity, GRANULARITIES)
    if out is None and painted is None:
        out, painted = Path(f"{file.stem}-parts.glb"), Path(f"{file.stem}-painted.glb")
    outputs = Outputs(out, painted, labels, json_file, picture)
    outputs.check(file)
    points = [] if clicks is None else _parse_clicks(clicks)
    _check_device(device)
    started = time.monotonic()
    with handle_errors():
        with terminal.err.status(f"segmenting {terminal.sanitize_text(file.name)}"):
            from segvigen_model.command.parts import find_parts
            from segvigen_model.mesh.files import load_mesh
            from segvigen_model.segmenter import Segmenter

            mesh = load_mesh(file)
            segmenter = Segmenter.from_checkpoint(checkpoint, device)
            parts = find_parts(segmenter, mesh, points, granularity=granularity, seed=seed)
        outputs.write(parts, file.name, time.monotonic() - started)


def show_parts(name: str, parts: Parts) -> None:
    """Print one row a part, with the colour that it has in the files."""
    title = f"{name}: {len(parts.part_confidence)} parts, {parts.mesh.num_faces} faces"
    shown = terminal.make_table(
        terminal.sanitize_text(title), "part", "", "faces", "surface", "confidence"
    )
    for row in parts.rows():
        shown.add_row(
            f"{row['part']} {row['name']}".strip(),
            f"[{row['color']}]██[/]",
            str(row["faces"]),
            f"{100 * row['area_share']:.1f} %",
            f"{row['confidence']:.2f}",
        )
    terminal.out.print(shown)


def _parse_clicks(text: str) -> list[PointClick]:
    try:
        found = parse_clicks(text)
        are_corrections(found)
    except BadClicks as err:
        raise typer.BadParameter(str(err), param_hint="--clicks") from err
    return found


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise typer.BadParameter(f"{name!r} is none of cpu, cuda, cuda:N", param_hint="--device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        error = NotReady(f"this machine has no device {name}; use --device cpu")
        with handle_errors():
            raise error
