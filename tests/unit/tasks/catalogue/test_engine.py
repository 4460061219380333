"""What opening a catalogue leaves on disk."""

from __future__ import annotations

from pathlib import Path

from tasks.catalogue import AssetRow, AssetState, Catalogue


def test_a_new_file_and_its_log_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = Catalogue(f"sqlite:///{path}")
    catalogue.register(AssetRow("07" * 32, AssetState.REGISTERED, name="chair"))
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("catalogue.db*")}
    assert "catalogue.db-wal" in modes and set(modes.values()) == {0o600}, modes
