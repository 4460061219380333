"""Tunables of the segmenter are settings; only three kinds of numbers may be module constants."""

from __future__ import annotations

import ast
from pathlib import Path

import segvigen_model

LIBRARY = Path(segvigen_model.__file__).parent
SEGMENTER = (
    *("surface", "interactive", "partition", "slat_flow/palette.py"),
    *("model/inference.py", "segmenter.py", "session.py"),
)
# What the shipped networks were trained on, and their sizes.
SCHEMA = {
    *("SEGMENT_COUNTS", "RADII", "FAR", "FOLD_PRICE", "_GRID"),
    *("LONGEST", "_SKIP", "_STEP", "_NUM_SIDE_RAYS"),
    *("NUM_FREQUENCIES", "NUM_LEVELS", "NUM_SCALARS", "_NUM_PAIR_FEATURES", "_THICKNESS"),
    *("_DISTANCE_SCALES", "_NEARBY_CUTS", "_SEGMENT_LEVELS", "_NUM_CROP_FEATURES"),
    *("_NUM_MASK_FEATURES", "EXPECTED_IOU_COLUMN", "KINDS", "_SHARED", "WIDTH", "_MAX_DEVIATION"),
    *("_CANDIDATES", "LEVELS"),  # palettes that flows are trained with
}
# Epsilons, sentinels, bounds on work, and fixed steps of a sequence or of a neighbourhood.
ARITHMETIC = {
    *("MIN_SHARE", "MIN_AREA", "WELD_TOLERANCE", "_OPENNESS", "_REGION_GAP"),
    *("MAX_ROUNDS", "MIN_NECK", "KEY_LIMIT", "MAX_SIZE"),
    *("MAX_SAMPLES", "_STEP_U", "_HALF_NEIGHBOURS", "NOISE_SEED_STEP"),
    *("NO_CLICK_LOGIT", "NO_TARGET", "HIDDEN"),
}
# Rules of stored labels, which hold where no segmenter is loaded.
LABELS = {"MAX_FINER_LEVELS", "MIN_PIECE_AREA"}


def list_numbers(file: Path) -> set[str]:
    """Module constants of a file that hold numbers; paths do not count."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            values = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            has_number = any(type(value) in (int, float) for value in values)
            if has_number and not any(isinstance(value, str) for value in values):
                names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
                found.add(names[0])
    return found


def test_every_number_of_the_segmenter_is_a_setting_or_of_a_known_kind():
    files = [
        file
        for place in SEGMENTER
        for file in ([LIBRARY / place] if place.endswith(".py") else (LIBRARY / place).glob("*.py"))
    ]
    assert len(files) > 25
    unknown = {
        f"{file.relative_to(LIBRARY)}: {name}"
        for file in files
        for name in list_numbers(file) - SCHEMA - ARITHMETIC - LABELS
    }
    assert not unknown, (
        f"make these settings of segvigen_model.config, or name their kind: {unknown}"
    )
