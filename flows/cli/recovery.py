"""`segvigen verify`, `repair`, `backup`, `restore`: what to do when something is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import console
from flows.cli.options import Config, Home, enter_stack
from infra.local import DEFAULT_HOME
from segvigen_model.command import terminal
from segvigen_model.command.options import WENT_WRONG, AsJson, handle_errors
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from tasks.storage.store import Store

app = typer.Typer()

Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="Only blobs of this kind; may be repeated.")
]
Sample = Annotated[
    float, typer.Option(min=0, help="Up to 1: share of the blobs; above 1: their number.")
]
Seed = Annotated[int, typer.Option(help="Of the sample that is drawn.")]
FromBucket = Annotated[
    bool, typer.Option("--from-bucket", help="Rebuild the catalogue from the store's blobs.")
]
Adding = Annotated[
    bool, typer.Option("--add", help="With --from-bucket: add what a filled catalogue lacks.")
]


@app.command()  # more than five parameters: each is an option of the command
def verify(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    sample: Sample = 1.0,
    kind: Kinds = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Read the blobs that the catalogue needs and compare hashes; exit code 1 if one is wrong."""
    from tasks.recovery.scrub import scrub
    from tasks.workspace import Workspace

    with handle_errors(), terminal.err.status("reading"):
        enter_stack(home, config)
        workspace = Workspace.from_settings(load_settings())
        report = scrub(workspace, _check_kinds(kind), sample, seed)
    if as_json:
        terminal.out.print_json(json.dumps(report.as_dict()))
    else:
        _show_scrub(report.as_dict())
    if report.faults:
        raise typer.Exit(WENT_WRONG)


@app.command()  # more than five parameters: each is an option of the command
def repair(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    kind: Kinds = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be tried; change nothing.")] = False,
    import_from_bucket: Annotated[
        bool, typer.Option("--import-from-bucket", help="The same as restore --from-bucket.")
    ] = False,
    add: Adding = False,
    as_json: AsJson = False,
) -> None:
    """Find damaged and missing blobs and make them again; exit code 1 if something stays lost."""
    from tasks.recovery.repair import list_lost_labels, repair
    from tasks.recovery.scrub import scrub
    from tasks.workspace import Workspace

    if import_from_bucket:
        _import(home, config, add, as_json)
        return
    with handle_errors(), terminal.err.status("reading"):
        enter_stack(home, config)
        workspace = Workspace.from_settings(load_settings())
        faults = scrub(workspace, _check_kinds(kind)).faults
        done = repair(workspace, faults, is_dry_run=dry_run)
        lost = [] if dry_run else list_lost_labels(workspace, done)
    rows = [each.as_dict() for each in done]
    if as_json:
        terminal.out.print_json(json.dumps({"repairs": rows, "lost_labels": lost}))
    else:
        _show_rows(rows, "nothing is damaged")
        for name in lost:
            terminal.out.print(f"accepted labels are lost: {terminal.sanitize_text(name)}")
    if not dry_run and not all(each.is_mended for each in done):
        raise typer.Exit(WENT_WRONG)


@app.command()
def backup(
    target: Annotated[str, typer.Argument(help="Folder, or URL such as s3://bucket/backups.")],
    home: Home = DEFAULT_HOME,
    config: Config = None,
    blobs: Annotated[bool, typer.Option(help="Also copy the blobs that are not there yet.")] = True,
    as_json: AsJson = False,
) -> None:
    """Back up the catalogue, the list of blobs it needs and, unless --no-blobs, the blobs."""
    from tasks.recovery.backup import back_up
    from tasks.workspace import Workspace

    with handle_errors(), terminal.err.status("reading"):
        enter_stack(home, config)
        settings = load_settings()
        workspace = Workspace.from_settings(settings)
        report = back_up(workspace, _open_target(settings, target), has_blobs=blobs).as_dict()
    _show_backup(report, "backup", as_json)


@app.command()  # more than five parameters: each is an option of the command
def restore(
    source: Annotated[str, typer.Argument(help="The target of `segvigen backup`.")] = "",
    home: Home = DEFAULT_HOME,
    config: Config = None,
    which: Annotated[str, typer.Option(help="Folder of one backup; default: newest.")] = "",
    force: Annotated[bool, typer.Option(help="Also over a catalogue with assets.")] = False,
    from_bucket: FromBucket = False,
    add: Adding = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup, or rebuild the catalogue from the store's blobs; stop the workers first."""
    from tasks.recovery.backup import restore as bring_back
    from tasks.storage.store import Store

    if from_bucket:
        _import(home, config, add, as_json)
        return
    if not source:
        raise typer.BadParameter("give the backup's address, or --from-bucket", param_hint="SOURCE")
    with handle_errors(), terminal.err.status("reading"):
        enter_stack(home, config)
        settings = load_settings()
        url, store = settings.catalogue.url.get_secret_value(), Store.from_settings(settings.store)
        place = _open_target(settings, source)
        report = bring_back(url, store, place, which, is_forced=force).as_dict()
    _show_backup(report, "restored", as_json)


def _import(home: Path, config: str | None, is_adding: bool, as_json: bool) -> None:
    from tasks.recovery.bucket_import import import_from_bucket
    from tasks.workspace import Workspace

    with handle_errors(), terminal.err.status("reading"):
        enter_stack(home, config)
        workspace = Workspace.from_settings(load_settings())
        report = import_from_bucket(workspace, is_adding=is_adding).as_dict()
    if as_json:
        terminal.out.print_json(json.dumps(report))
    else:
        counts = [f"{report[name]} {name}" for name in ("assets", "label_sets", "versions")]
        terminal.out.print("imported " + ", ".join(counts).replace("_", " "))
        _show_rows(report["problems"], "")
    if report["problems"]:
        raise typer.Exit(WENT_WRONG)


def _open_target(settings: Settings, address: str) -> Store:
    """A folder, or a URL; on S3 with the keys of the store."""
    from tasks.storage.store import Store

    url = address if "://" in address else f"file://{Path(address).resolve()}"
    return Store.from_settings(settings.store.model_copy(update={"root_url": url}))


def _check_kinds(kinds: list[str] | None) -> list[Any]:
    from tasks.recovery.needs import BlobKind

    known = [str(kind) for kind in BlobKind]
    for kind in kinds or ():
        if kind not in known:
            raise typer.BadParameter(f"{kind!r} is none of {', '.join(known)}", param_hint="--kind")
    return [BlobKind(kind) for kind in kinds or ()]


def _show_scrub(report: dict[str, Any]) -> None:
    faulty = [fault["kind"] for fault in report["faults"]]
    rows = [
        {"kind": kind, "checked": number, "wrong": faulty.count(kind)}
        for kind, number in report["checked"].items()
    ]
    _show_rows(rows, "the catalogue needs no blobs")
    _show_rows(report["faults"], "all that was read is as it was written")
    if report["orphans"] is not None:
        terminal.out.print(
            f"{report['orphans']} objects that no row needs, {report['orphan_bytes']} bytes"
        )


def _show_backup(report: dict[str, Any], verb: str, as_json: bool) -> None:
    if as_json:
        terminal.out.print_json(json.dumps(report))
    else:
        counts = f"{report['blobs']} blobs needed, {report['copied']} copied"
        terminal.out.print(f"{verb} {report['folder']}: {counts}")
        _show_rows(report["problems"], "")
    if report["problems"]:
        raise typer.Exit(WENT_WRONG)


def _show_rows(rows: list[dict[str, Any]], nothing: str) -> None:
    if rows:
        console.show_table(rows)
    elif nothing:
        terminal.out.print(nothing)
