"""Tables of the pipeline's subcommands, a progress bar and the report of a flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from segvigen_model.command.terminal import err, make_table, out, sanitize_text

if TYPE_CHECKING:
    from infra.local import LocalStack
    from tasks.shards.labelled_folder import DatasetFolder

MAX_WHY_CHARS = 140  # in a table; JSON has the whole text


def shorten_text(text: str) -> str:
    """Untrusted text on one line of a table, cut at its end."""
    line = " ".join(text.split())
    return sanitize_text(line if len(line) <= MAX_WHY_CHARS else f"{line[: MAX_WHY_CHARS - 1]}…")


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the progress of every stage that runs inside, on standard error."""
    from flows.runtime.report import listen_to_progress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err) as bar:
        tasks: dict[str, Any] = {}

        def listen(stage: str, finished: int, total: int) -> None:
            if stage not in tasks or finished == 0:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=finished, total=total)

        with listen_to_progress(listen):
            yield


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same columns."""
    table = make_table("", *rows[0])
    for row in rows:
        table.add_row(*(sanitize_text(str(value)) for value in row.values()))
    out.print(table)


def show_state(state: Mapping[str, Any]) -> None:
    """Print the state of all assets, shards and services."""
    assets = make_table("Assets", "state", "number")
    for name, number in state["assets"].items():
        if number:
            assets.add_row(name, str(number))
    assets.add_row("[bold]total", f"[bold]{state['total']}")
    out.print(assets)
    for title, word in (("Parked", "reason"), ("Failing, will be tried again", "attempts")):
        rows = state[title.partition(",")[0].lower()]
        troubles = make_table(title, "asset", "name", "state", word, "why")
        for row in rows:
            why = shorten_text(row["detail"] or row["last_error"] or "")
            known = row["asset"][:12], sanitize_text(row["name"]), row["state"], str(row[word])
            troubles.add_row(*known, why)
        if rows:
            out.print(troubles)
    show_sick_devices(state["sick_devices"])
    if state["suspects"]:
        out.print(f"{len(state['suspects'])} assets are worked on alone: workers died with them")
    if state["quarantined"]:
        counts = ", ".join(f"{number} {kind}" for kind, number in state["quarantined"].items())
        out.print(f"Quarantined: {counts}; `segvigen quarantine list` shows all")
        show_quarantine(state["quarantine"])
    shards = make_table("Shards", "dataset", "version", "samples", "MB")
    for row in state["shards"]:
        size = f"{row['size_bytes'] / 1e6:.1f}"
        shards.add_row(row["dataset"], row["version"], str(row["samples"]), size)
    out.print(shards)
    services = make_table("Services", "name", "state", "where")
    for row in state["services"]:
        running = "[green]running" if row["is_running"] else "[red]stopped"
        where = row["url"] or (f"pid {row['pid']}" if row["pid"] else "")
        services.add_row(row["name"], running, where)
    out.print(services)


def show_sick_devices(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print devices that failed; nothing where none did."""
    sick = make_table("Sick devices", "device", "asset", "since", "why")
    for row in rows:
        about = (sanitize_text(row["device"]), row["asset_id"][:12], _format_time(row["at"]))
        sick.add_row(*about, shorten_text(row["error"]))
    if rows:
        out.print(sick)


def show_quarantine(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print messages that could not be read, each with its reason."""
    messages = make_table("Quarantine", "message", "kind", "seen", "reason")
    for row in rows:
        name = row.get("message") or row["message_id"]
        about = (sanitize_text(name), row["kind"], str(row["count"]))
        messages.add_row(*about, shorten_text(row["reason"]))
    out.print(messages)


def show_asset(history: Mapping[str, Any]) -> None:
    """Print what `segvigen show` reads."""
    asset = history["asset"]
    about = make_table(f"Asset {asset['asset_id'][:12]}", "what", "")
    rows = {
        "name": asset["name"],
        "state": f"{asset['state']}, round {asset['round']}",
        "faces": asset["num_faces"],
        "licence": asset["licence"],
        "why it is parked": " ".join(filter(None, (asset["reason"], asset["detail"]))),
        "last error": asset["last_error"],
        "raw objects": "\n".join(history["raw_objects"]),
        "source": asset["source_key"],
        "encoding": asset["encoding_key"],
    }
    for what, value in rows.items():
        if value:
            about.add_row(what, sanitize_text(str(value)))
    out.print(about)
    _show_rounds(history)


def _show_rounds(history: Mapping[str, Any]) -> None:
    rounds = make_table("Rounds", "round", "made", "parts", "confidence", "blob")
    for row in history["rounds"]:
        numbers = (str(row["num_parts"]), f"{row['confidence']:.2f}")
        rounds.add_row(str(row["round"]), _format_time(row["created_at"]), *numbers, row["key"])
    out.print(rounds)
    responses = make_table("Annotations", "round", "when", "reviewer", "verdict", "note or problem")
    for row in history["annotations"]:
        words = " / ".join(filter(None, (row["note"], row["problem"])))
        when, who = row["updated_at"][:16], sanitize_text(row["reviewer"])
        responses.add_row(str(row["round"]), when, who, row["verdict"] or "-", sanitize_text(words))
    out.print(responses)
    labels = make_table("Label sets", "id", "made", "parts", "clicks", "by", "blob")
    for row in history["label_sets"]:
        numbers = (str(row["num_parts"]), str(row["num_clicks"]))
        who = sanitize_text(row["decided_by"])
        labels.add_row(row["label_id"], _format_time(row["created_at"]), *numbers, who, row["key"])
    out.print(labels)


def show_checkpoints(rows: Sequence[Mapping[str, Any]], setting: str) -> None:
    """Print the tuned checkpoints."""
    from tasks.checkpoints import CURRENT

    shown = make_table("Checkpoints", "version", "", "verdict")
    for row in rows:
        in_use = "[green]in use" if row["is_in_use"] and setting == CURRENT else ""
        shown.add_row(row["version"], in_use, sanitize_text(row["reason"]))
    out.print(shown)
    if setting != CURRENT:
        out.print(f"SEGVIGEN_MODEL_CHECKPOINT={sanitize_text(setting)} is set and comes first.")


def show_export(written: DatasetFolder, folder: Path) -> None:
    """Print what was written, and what was left out."""
    counts = ", ".join(f"{number} {split}" for split, number in written.splits.items())
    out.print(f"{sanitize_text(str(folder))}: {counts}", soft_wrap=True)
    for asset_id, why in written.left_out:
        err.print(sanitize_text(f"{asset_id[:12]} left out: {why}"), soft_wrap=True)


def show_quality(state: Mapping[str, Any]) -> None:
    """Print the reviewers and the state of quality control."""
    from tasks.quality.statistics import COLUMNS, format_reviewer_cells

    people = make_table("Reviewers", "reviewer", *COLUMNS)
    for row in state["reviewers"]:
        people.add_row(sanitize_text(row["reviewer"]), *format_reviewer_cells(row))
    out.print(people)
    checks = make_table("Checks", "what", "state")
    for row in _quality_rows(state):
        checks.add_row(*row)
    out.print(checks)


def show_access(stack: LocalStack) -> None:
    """Print the URLs of the local stack and its user."""
    from infra.home import load_secrets

    secrets = load_secrets(stack.home)
    where = make_table("Local stack", "what", "where")
    for row in stack.list_status():
        where.add_row(row.name, row.url or (f"pid {row.pid}" if row.pid else "[red]not running"))
    out.print(where)
    out.print(
        f"Label Studio user {secrets.label_studio_username}, "
        f"password {secrets.label_studio_password} (kept in {stack.home / 'secrets.json'})",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"Prefect login {secrets.prefect_auth}", highlight=False, soft_wrap=True)


def show_report(report: Mapping[str, Any]) -> None:
    """Print a stage's counts."""
    counts = ", ".join(
        f"{number} {name}" for name, number in report.get("counts", {}).items() if number
    )
    out.print(
        f"{report.get('stage', 'label_dataset')}: {counts or 'nothing to do'}"
        f" ({report.get('seconds', 0)} s)"
    )
    if report.get("note"):
        out.print(sanitize_text(str(report["note"])), highlight=False, soft_wrap=True)


def _quality_rows(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    queue, audits = state["queue"], state["audits"]
    doubles, gold = state["double_annotations"], state["gold_tasks"]
    in_project = f"{queue['open_in_project']} of at most {queue['max_open_tasks']} in the project"
    misses = f"{audits['misses']} of the last {audits['last']} contradict the gate"
    required = f"it requires confidence {audits['required_confidence']:.3g}"
    compared = f"{doubles['compared']} of {doubles['planned']} compared"
    return [
        ("queue", f"{queue['waiting']} waiting, {in_project}"),
        ("reviews", f"{state['reviews']['measured']} measured, {_describe_gain(state)}"),
        ("audits", f"{misses}; {required}"),
        ("double annotation", f"{compared}, {doubles['disputed']} disputed{_format_mean(doubles)}"),
        ("gold tasks", f"{gold['answered']} of {gold['planted']} answered{_format_mean(gold)}"),
    ]


def _describe_gain(state: Mapping[str, Any]) -> str:
    gain = state["reviews"]["mean_gain"]
    return "no gain known yet" if gain is None else f"mean gain {gain:.2f} IoU"


def _format_mean(part: Mapping[str, Any]) -> str:
    return "" if part["mean_iou"] is None else f", mean IoU {part['mean_iou']:.2f}"


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
