"""Formats that are not read, each with the way to one that is."""

from __future__ import annotations

BLENDER = "open it in Blender and export GLB"
ASSIMP = "convert it: assimp export FILE out.glb"
FREECAD = "it holds exact solids, not triangles; tessellate it in FreeCAD and export GLB or OBJ"
UNPACK = "unpack it, or pack it as ZIP"
# Suffix -> what to do.
CONVERTERS = {
    "blend": BLENDER,
    "dae": BLENDER + ", or convert it with COLLADA2GLTF",
    "abc": BLENDER,
    "x3d": BLENDER,
    "wrl": BLENDER,
    "lwo": BLENDER,
    "max": "open it in 3ds Max and export GLB or FBX",
    "c4d": "open it in Cinema 4D and export GLB or FBX",
    "ma": "open it in Maya and export FBX",
    "mb": "open it in Maya and export FBX",
    "skp": "open it in SketchUp and export GLB",
    "3dm": "open it in Rhino and export GLB",
    "3ds": ASSIMP,
    "ase": ASSIMP,
    "ac": ASSIMP,
    "md2": ASSIMP,
    "md5mesh": ASSIMP,
    "ms3d": ASSIMP,
    "x": ASSIMP,
    "amf": ASSIMP,
    "dxf": ASSIMP,
    "step": FREECAD,
    "stp": FREECAD,
    "iges": FREECAD,
    "igs": FREECAD,
    "brep": FREECAD,
    "ifc": FREECAD,
    "drc": "put the Draco data into a GLB: npx @gltf-transform/cli draco in.glb out.glb",
    "vrm": "it is a GLB; name it .glb",
    "b3dm": "it is a tile of a map; unpack its GLB: npx 3d-tiles-tools b3dmToGlb",
    "gz": UNPACK,
    "7z": UNPACK,
    "rar": UNPACK,
    "tar": UNPACK,
    "splat": "it holds points, not surfaces; make a mesh of it first",
    "spz": "it holds points, not surfaces; make a mesh of it first",
    "pcd": "it holds points, not surfaces; make a mesh of it first",
    "las": "it holds points, not surfaces; make a mesh of it first",
    "xyz": "it holds points, not surfaces; make a mesh of it first",
}


def find_converter(suffix: str, known: tuple[str, ...]) -> str:
    """What to do with a file of a format that is not read."""
    return CONVERTERS.get(suffix, f"export as one of {', '.join(known)}")
