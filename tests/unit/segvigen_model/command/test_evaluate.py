"""`segvigen evaluate`: options, both regimes, what is written and what is printed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from segvigen_model.checkpoints import native
from segvigen_model.command import options
from segvigen_model.command.main import make_app
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.datasets.synthetic_pack import write_object
from segvigen_model.errors import SegvigenError
from segvigen_model.model.bundle import build_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    row = write_object(root, make_asset("stool", 3, textured=False))
    lines = [json.dumps(row), json.dumps({"id": "ghost [bold]"})]
    (root / "manifest.jsonl").write_text("\n".join(lines))
    native.save_model(build_model("tiny"), root / "tiny")
    return root


def run(folder, *arguments):
    given = ["--data", str(folder), "--checkpoint", str(folder / "tiny"), *map(str, arguments)]
    return CliRunner().invoke(make_app(), ["evaluate", *given], env={"COLUMNS": "80"})


def test_both_regimes_are_written_and_shown_side_by_side(folder, tmp_path):
    file = tmp_path / "result.json"
    response = run(
        folder, "--surface", "both", "--mode", "interactive", "--clicks", "3,1,1", "--json", file
    )
    assert response.exit_code == options.OK, response.output
    result = json.loads(file.read_text())
    assert set(result) == {"as-is", "fused"}
    for regime, each in result.items():
        assert each["surface"] == regime and set(each["interactive"]) == {"iou@1", "iou@3"}
        assert each["refused"] == 1 and each["objects"] == 1
    header = response.stdout.splitlines()[0]
    assert "as-is: segmenter" in header and "fused: margin" in header, "one unbroken line"
    assert "ghost [bold] refused: object: unreadable_object" in response.output


def test_one_regime_is_written_as_it_is(folder):
    response = run(folder, "--mode", "interactive", "--clicks", "1", "--json", "-")
    assert response.exit_code == options.OK
    result = json.loads(response.stdout)
    assert result["surface"] == "as-is" and "iou@1" in result["interactive"]


def test_a_run_is_reported_against_an_earlier_one(folder, tmp_path):
    earlier, now = tmp_path / "earlier.json", tmp_path / "now.json"
    requested = ("--mode", "interactive", "--clicks", "1,3", "--surface", "both")
    assert run(folder, *requested, "--json", earlier).exit_code == options.OK
    response = run(folder, *requested, "--json", now, "--against", earlier)
    assert response.exit_code == options.OK, response.output
    for regime in ("as-is", "fused"):
        assert f"{regime}, 1 objects in both runs, 0 in one only" in response.stdout
        reported = json.loads(now.read_text())[regime]["against"]
        assert reported["interactive"]["iou@3"]["difference"] == 0.0, (
            "the same seed, the same answers"
        )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--surface", "fused"), "holds as-is, not fused"),
        (("--clicks", "1,5"), "clicks up to=1, this run has clicks up to=5"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_it_is_measured(
    folder, tmp_path, monkeypatch, more, words
):
    earlier = tmp_path / "earlier.json"
    run(folder, "--mode", "interactive", "--clicks", "1", "--json", earlier)
    monkeypatch.setattr(
        "segvigen_model.evaluation.protocol.evaluate", lambda *_, **__: pytest.fail("ran")
    )
    response = run(folder, "--mode", "interactive", *more, "--against", earlier)
    assert response.exit_code == options.WENT_WRONG and words in " ".join(response.output.split())


@pytest.mark.parametrize("option", ["--labels", "--surface", "--mode", "--clicks", "--split"])
def test_unknown_words_are_refused(folder, option):
    response = run(folder, option, "1,x")
    assert response.exit_code == options.USAGE and option in response.output


def test_a_result_that_could_not_be_written_is_refused_before_it_is_measured(folder, tmp_path):
    response = run(folder, "--json", tmp_path / "nowhere" / "r.json")
    assert response.exit_code == options.USAGE
    assert "--json" in response.output and "nowhere is no" in response.output


def test_a_folder_without_a_manifest_is_reported_in_one_line(tmp_path):
    native.save_model(build_model("tiny"), tmp_path / "tiny")
    response = run(tmp_path)
    assert response.exit_code == options.WENT_WRONG
    assert "manifest.jsonl" in response.output and "Traceback" not in response.output


def test_numbers_come_sorted_and_once():
    assert options.parse_numbers("--clicks", "5, 1,5") == (1, 5)


def test_our_errors_become_an_exit_code(capsys):
    import typer

    with pytest.raises(typer.Exit) as caught, options.handle_errors():
        raise SegvigenError("checkpoint [x] is gone; make it again")
    assert caught.value.exit_code == options.WENT_WRONG
    assert "checkpoint [x] is gone; make it again" in capsys.readouterr().err
