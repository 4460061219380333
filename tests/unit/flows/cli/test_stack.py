"""`segvigen up` and `segvigen down`."""

from __future__ import annotations

from segvigen_model.command import options


def test_up_without_label_studio_is_three(run, monkeypatch):
    from infra.processes import StackError

    def refuse(self, report):
        raise StackError("Label Studio is not installed; run `make setup`")

    monkeypatch.setattr("infra.local.LocalStack.start", refuse)
    response = run("up")
    assert response.exit_code == options.NOT_READY
    assert "make setup" in response.output


def test_down_of_nothing_is_fine(run, environment):
    assert run("down", "--home", str(environment / "none")).exit_code == 0
