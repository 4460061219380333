"""Themes that are held out of training, as words: every import drops what they name.

The held-out set names sources and categories (datasets/holdout.json). Another maker's model of the
same theme would leak what the held-out set measures. Such a model is found by the words
of its name, path, tags and part names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

THEMES: dict[str, tuple[str, ...]] = {
    "weapon": (
        "weapon sword swords claymore scimitar katana dagger daggers blade axe axes halberd spear",
        "mace flail scythe bow crossbow arrow arrows quiver shield shields gun guns pistol rifle",
        "revolver shotgun sniper smg blaster cannon cannons grenade bomb ammo bullet machete",
        "hammer warhammer",
    ),
    "space": (
        "space spaceship spacecraft rocket satellite alien astronaut ufo asteroid planet moonbase",
        "spacestation spacesuit lander",
    ),
    "street object": (
        "street streets streetlight streetlamp lamppost lamppole trafficlight traffic sign signs",
        "roadsign hydrant parking crossing road sidewalk bridge underpass cone mailbox barrier",
        "guardrail billboard bollard",
    ),
    "graveyard": (
        "graveyard grave gravestone tombstone crypt coffin tomb cemetery lantern lanterns shovel",
        "halloween",
    ),
    "architecture": ("house houses building buildings skyscraper facade",),
    "robot": (
        "robot robots mech mechs gripper quadruped humanoid cobot manipulator",
        "ur3 ur5 ur10 franka iiwa",
    ),
    "drone": ("drone drones quadrotor quadcopter multicopter uav uuv vtol rover lawnmower mower",),
    "procedural": (
        "bicycle bicycles bike bikes excavator excavators digger spider spiders teapot teapots",
        "windmill windmills",
    ),
}
_PHRASES: dict[str, tuple[str, ...]] = {
    "street object": ("lamp post", "park light", "street lamp", "street light", "traffic light"),
    "space": ("space craft", "space ship", "space base"),
    "architecture": ("doll house", "dog house"),
}
_ALLOWED_PHRASES = ("spider plant", "salad bowl", "ammo box")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def split_words(text: str) -> list[str]:
    """Lower-case words of a name: split at spaces, underscores, digits and capitals."""
    return [word.lower() for word in _WORD.findall(text)]


def find_held_out_theme(texts: Iterable[str]) -> str | None:
    """The first held-out theme that a text names, with the word; None when none does.

    Args:
        texts: name, path, tags and part names of one model.
    """
    for text in texts:
        words = split_words(text)
        line = " ".join(words)
        for phrase in _ALLOWED_PHRASES:
            line = line.replace(phrase, " ")
        found = set(line.split()) | {"".join(pair) for pair in itertools.pairwise(words)}
        for theme, rows in THEMES.items():
            named = sorted(found & set(" ".join(rows).split()))
            named += [phrase for phrase in _PHRASES.get(theme, ()) if phrase in line]
            if named:
                return f"{theme} ({named[0]})"
    return None
