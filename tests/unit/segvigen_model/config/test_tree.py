"""The segmenter's configuration: documented, checked, read from JSON, named by a digest."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, is_dataclass, replace

import pytest

from segvigen_model.config import (
    CropConfig,
    FusionWeights,
    LimitConfig,
    MaskProposalConfig,
    MaskVotingConfig,
    MergingConfig,
    PatchConfig,
    SegmenterConfig,
    override_settings,
)
from segvigen_model.errors import InvalidConfig

DEFAULT = SegmenterConfig()


def branches(config):
    yield config
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            yield from branches(value)


def test_every_setting_is_documented():
    for branch in branches(DEFAULT):
        if branch is DEFAULT:
            continue
        described = set(re.findall(r"\w+", type(branch).__doc__.split("Attributes:")[1]))
        absent = {each.name for each in fields(branch)} - described
        assert not absent, f"{type(branch).__name__} says nothing of {absent}"


def test_json_and_back_changes_nothing():
    read = override_settings(DEFAULT, json.loads(json.dumps(asdict(DEFAULT))), "segmenter")
    assert read == DEFAULT and read.digest == DEFAULT.digest


def test_what_is_not_given_stays():
    changed = override_settings(DEFAULT, {"merging": {"fine": {"merge_threshold": 0.3}}}, "it")
    assert changed.merging.fine.merge_threshold == 0.3
    assert changed.merging.fine.min_part_area == DEFAULT.merging.fine.min_part_area
    assert replace(changed, merging=DEFAULT.merging) == DEFAULT


def test_the_digest_names_what_labels_depend_on():
    finer = replace(DEFAULT, patches=PatchConfig(count=600))
    small = replace(DEFAULT, limits=LimitConfig(max_batch_tokens=10))
    assert len({DEFAULT.digest, finer.digest}) == 2
    assert small.digest == DEFAULT.digest, "memory bounds change no label"
    assert replace(DEFAULT, voting=MaskVotingConfig(bias=-1)).digest == (
        replace(DEFAULT, voting=MaskVotingConfig(bias=-1.0)).digest
    ), "a whole number is the same setting"


def test_provenance_names_what_is_not_the_default():
    assert DEFAULT.summary == {"digest": DEFAULT.digest, "changed": {}}
    config = replace(DEFAULT, crops=CropConfig(shares=(0.2,)), fusion=FusionWeights(mask=1))
    changed = {"crops": {"shares": [0.2]}, "fusion": {"mask": 1.0}}
    assert config.summary == {"digest": config.digest, "changed": changed}
    assert json.loads(json.dumps(config.summary)) == config.summary
    assert override_settings(DEFAULT, config.summary["changed"], "it") == config


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"crop": {}}, r"segmenter\.crop is no setting; segmenter has patches, components"),
        ({"crops": {"num_patch": 1}}, r"segmenter\.crops\.num_patch is no setting; .* num_patches"),
        ({"merging": {"fine": {"area": 1}}}, r"segmenter\.merging\.fine\.area is no setting"),
        ({"crops": 3}, r"segmenter\.crops is 3; it must be an object"),
        ({"crops": {"num_patches": 0}}, r"segmenter\.crops: CropConfig\.num_patches is 0.*1 <="),
        ({"crops": {"num_patches": 2.5}}, "num_patches is 2.5; it must be a whole number"),
        ({"crops": {"num_patches": True}}, "num_patches is True; it must be a whole number"),
        ({"crops": {"shares": []}}, "must be a list of one number or more"),
        ({"crops": {"shares": [0.5, 1.5]}}, r"shares is 1\.5; it must be a number, 0 <= value <="),
        ({"fusion": {"mask_range": [0.1]}}, "must be a list of 2 numbers"),
        ({"fusion": {"mask_range": [0.9, 0.1]}}, "its numbers must rise"),
        ({"fusion": {"mask_range": [0.0, 0.5]}}, "0 < value < 1"),
        ({"fusion": {"mask": "much"}}, "mask is 'much'; it must be a number"),
        ({"voting": {"bias": float("nan")}}, "bias is nan; it must be a number, finite"),
        ({"merging": {"fine": {"merge_threshold": 0.5}}}, "falls from fine to coarse"),
        ({"merging": {"coarse": {"min_part_area": 0.0}}}, "min_part_area falls"),
        ({"proposals": {"cut": 0.2}}, "cut 0.2 must exceed cut_drop 0.28"),
        ({"proposals": {"num_groups": 40}}, "group levels fall to -0.2"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(data, match):
    with pytest.raises(InvalidConfig, match=match):
        override_settings(DEFAULT, data, "segmenter")


def test_a_branch_of_another_kind_is_refused():
    with pytest.raises(InvalidConfig, match=r"crops is .* it must be a CropConfig"):
        replace(DEFAULT, crops=DEFAULT.patches)


def test_granularities_continue_from_the_finer_one():
    merging = MergingConfig()
    assert merging.list_up_to("medium") == [merging.fine, merging.medium]
    with pytest.raises(ValueError, match="granularity 'huge' is none of"):
        merging.list_up_to("huge")


def test_cuts_are_the_lower_the_fewer_clicks():
    proposals = MaskProposalConfig()
    assert proposals.compute_cut(1) == proposals.compute_cut(0) == pytest.approx(0.12)
    assert proposals.compute_cut(10) == pytest.approx(0.311, abs=1e-3)
    assert len(proposals.group_levels) == 32 and proposals.group_levels[0] == 0.97
