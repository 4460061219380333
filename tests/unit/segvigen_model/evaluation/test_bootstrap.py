"""Cluster bootstrap: objects are drawn, differences are paired, answers repeat."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.evaluation.bootstrap import ObjectMeans, nest_values


def objects(rng, count=40, parts=5, shared=0.0):
    """Numbers whose parts agree within an object as much as `shared` says."""
    out = []
    for _ in range(count):
        own = rng.normal()
        own_and_noise = shared * own + (1 - shared) * rng.normal(size=parts)
        out.append({"a": own_and_noise.tolist(), "b": (own_and_noise + 0.3).tolist()})
    return out


def test_mean_weighs_parts_and_interval_holds_it():
    table = ObjectMeans([{"a": [1.0, 1.0, 1.0]}, {"a": [0.0]}])
    assert table.compute_mean("a") == 0.75
    low, high = table.compute_interval("a")
    assert low == 0.0 and high == 1.0, "two objects: a resample may hold one of them only"


def test_parts_that_agree_widen_the_interval():
    widths = []
    for shared in (0.0, 1.0):
        low, high = ObjectMeans(objects(np.random.default_rng(1), shared=shared)).compute_interval(
            "a"
        )
        widths.append(high - low)
    assert widths[1] > 1.6 * widths[0]


def test_interval_covers_the_truth_about_as_often_as_claimed():
    hits = 0
    for seed in range(100):
        low, high = ObjectMeans(objects(np.random.default_rng(seed), shared=0.7)).compute_interval(
            "a"
        )
        hits += low <= 0.0 <= high
    assert 87 <= hits <= 100


def test_differences_are_paired():
    table = ObjectMeans(objects(np.random.default_rng(0), shared=0.9))
    gap, (low, high) = table.compute_difference("b", "a")
    assert gap == pytest.approx(0.3) and low == pytest.approx(0.3) and high == pytest.approx(0.3)
    alone = table.compute_interval("a")
    assert alone[1] - alone[0] > 0.1, "each mean for itself is far less sure"


def test_same_seed_same_interval_and_names_may_be_missing():
    rows = [*objects(np.random.default_rng(0), count=3), {"c": [1.0]}]
    assert ObjectMeans(rows).compute_interval("a") == ObjectMeans(rows).compute_interval("a")
    assert ObjectMeans(rows).compute_mean("c") == 1.0
    assert ObjectMeans(rows).compute_interval("c") == (1.0, 1.0)


def test_nested_names():
    assert nest_values({"a|b": 1, "a|c|d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
