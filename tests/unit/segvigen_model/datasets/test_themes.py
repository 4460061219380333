"""Held-out themes: found by the words of names, and nothing else is dropped."""

from __future__ import annotations

import pytest

from segvigen_model.datasets.themes import THEMES, find_held_out_theme, split_words
from segvigen_model.datasets.voxel_samples import load_holdout


def test_names_are_split_at_capitals_digits_and_signs():
    assert split_words("KnifeStand_02.wood-top") == ["knife", "stand", "02", "wood", "top"]
    assert split_words("LEDLamp") == ["led", "lamp"]
    assert split_words("classic-lamppost") == ["classic", "lamppost"]


@pytest.mark.parametrize(
    ("text", "theme"),
    [
        ("Sword_Big", "weapon (sword)"),
        ("lightningGun", "weapon (gun)"),
        ("Fire hydrant", "street object (hydrant)"),
        ("Park light", "street object (park light)"),
        ("Street Lamp", "street object (street)"),
        ("Lamp Post 2", "street object (lamppost)"),
        ("traffic_light", "street object (traffic)"),
        ("Space ship", "space (space)"),
        ("UR10 forearm", "robot (ur10)"),
        ("Teapot", "procedural (teapot)"),
        ("Tea pot", "procedural (teapot)"),
        ("quadrotor_base", "drone (quadrotor)"),
        ("House 18", "architecture (house)"),
    ],
)
def test_a_held_out_theme_is_found(text, theme):
    assert find_held_out_theme(["plain name", text]) == theme


@pytest.mark.parametrize(
    "text",
    ["Windshield", "Gunmetal chair", "Spider plant", "Armchair", "Household", "Designer table"],
)
def test_other_words_are_no_theme(text):
    assert find_held_out_theme([text]) is None


def test_every_held_out_category_has_words_or_is_none():
    """A category added to holdout.json needs words here; "misc" names no theme."""
    table = load_holdout()
    for category in table["pack_categories"]:
        theme = category.removesuffix(" prop")
        assert theme in THEMES or category == "misc", category
    for category in table["procedural_categories"]:
        assert find_held_out_theme([category]) is not None, category
