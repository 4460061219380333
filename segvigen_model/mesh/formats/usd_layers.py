"""The layers of a USD scene, every one in memory, and nothing else within the library's reach.

Before a scene is put together, every name in every layer is replaced: that of another layer by the
name of an anonymous one which was read from the bytes given, any other by a number. So the
library never sees a path that a stranger wrote. A layer that was not given refuses the scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.archives import open_archive
from segvigen_model.mesh.formats.limits import MeshLimits, make_unreadable_error
from segvigen_model.mesh.formats.references import SideFiles
from segvigen_model.mesh.formats.side_names import normalize_name
from segvigen_model.mesh.formats.side_search import resolve_below
from segvigen_model.mesh.formats.usd_library import (
    LAYER_KINDS,
    PACKAGE,
    USD_KINDS,
    import_usd,
    list_asset_names,
    open_layer,
    replace_tile,
    translate_errors,
)

TOKEN = "segvigen-file-"
MAX_PACKAGES = 16  # one in another: each unfolds to at most `max_bytes`


class UsdLayers:
    """Layers by their bytes.

    Args:
        side_files: name as written, or path below the scene's folder -> bytes.
        limits: bounds, and whether a texture may be absent.
    """

    def __init__(self, side_files: Mapping[str, bytes], limits: MeshLimits) -> None:
        self._given = dict(side_files)
        self._sides = SideFiles(side_files, limits)
        self._limits = limits
        self._layers: dict[int, Any] = {}  # by their bytes' identity; kept, or they are forgotten
        self._names: list[tuple[str, str]] = []  # folder and name of each number
        self._num_packages = 0

    def open_root(self, data: bytes, kind: str) -> Any:
        """The `Sdf.Layer` that the scene begins with.

        Args:
            data: the file.
            kind: its suffix.
        """
        if kind == PACKAGE:
            return self._open_package(data, "")
        return self._open(data, f"the .{kind} itself", "")

    def read_file(self, token: str) -> tuple[str, bytes | None]:
        """Name and bytes of a texture by what stands for it in the scene; None = may be absent.

        Raises:
            AssetRejected: missing_side_file or external_reference.
        """
        number = token.removeprefix(TOKEN)
        if number == token or not number.isdigit() or int(number) >= len(self._names):
            raise make_unreadable_error(f"the USD has a texture {token[:80]!r} of no layer")
        folder, name = self._names[int(number)]
        return name, self._find(folder, name)

    @property
    def counts(self) -> Counter[str]:
        """Textures that were absent, or found elsewhere."""
        return self._sides.counts

    def _find(self, folder: str, name: str) -> bytes | None:
        clean = normalize_name(replace_tile(name))
        path = resolve_below("", folder, clean)
        if path is not None and path in self._given:
            return self._given[path]
        return self._sides.find(clean)

    def _open(self, data: bytes, name: str, folder: str) -> Any:
        if id(data) in self._layers:
            return self._layers[id(data)]
        layer = open_layer(data, name)
        self._layers[id(data)] = layer  # before its names: layers may name each other
        label = f"USD layer {name[:80]!r}"
        with translate_errors(label):
            others = set(layer.GetCompositionAssetDependencies())
            names = list_asset_names(layer)
        stand_ins = {}
        for written in names:
            if written in others:
                stand_ins[written] = self._open_named(written, folder)
            else:
                stand_ins[written] = f"{TOKEN}{len(self._names)}"
                self._names.append((folder, written))
        with translate_errors(label):
            import_usd("UsdUtils").ModifyAssetPaths(layer, lambda each: stand_ins.get(each, ""))
        return layer

    def _open_named(self, written: str, folder: str) -> str:
        """Open the layer of a name; gives what stands for it."""
        kind = PurePosixPath(written).suffix.lower().removeprefix(".")
        if kind not in USD_KINDS:
            raise AssetRejected(
                "unsupported_feature",
                f"the USD takes geometry from {written[:120]!r}; flatten it to one file: "
                "usdcat --flatten IN -o OUT.usdc",
            )
        data = self._find(folder, written)
        if data is None:
            raise AssetRejected(
                "missing_side_file",
                f"the USD needs layer {written[:120]!r}; put it beside the file, or export USDZ",
            )
        path = resolve_below("", folder, normalize_name(written)) or ""
        if kind == PACKAGE:
            return str(self._open_package(data, path).identifier)
        return str(self._open(data, written, path.rpartition("/")[0]).identifier)

    def _open_package(self, data: bytes, folder: str) -> Any:
        """Unpack a USDZ into a folder of its name; its first file is the layer."""
        if id(data) in self._layers:
            return self._layers[id(data)]
        self._num_packages += 1
        if self._num_packages > MAX_PACKAGES:
            raise AssetRejected("too_large", f"more than {MAX_PACKAGES} USDZ in one scene")
        archive = open_archive(data, self._limits, "USDZ")
        for name in archive.entries:
            self._given[f"{folder}/{name}" if folder else name] = archive.read(name)
        first = next(iter(archive.entries), "")
        if PurePosixPath(first).suffix.lower().removeprefix(".") not in LAYER_KINDS:
            raise make_unreadable_error(f"the USDZ begins with {first[:80]!r}, which is no layer")
        path = f"{folder}/{first}" if folder else first
        layer = self._open(self._given[path], path, path.rpartition("/")[0])
        self._layers[id(data)] = layer
        return layer
