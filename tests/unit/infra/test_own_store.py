"""Whose S3 server is used, by what the caller names."""

import pytest

from infra.own_store import (
    ACCESS_KEY,
    ENDPOINT_URL,
    RAW_URL,
    ROOT_URL,
    describe_key_source,
    is_own_store,
)
from infra.processes import StackError

LOCAL = "http://127.0.0.1:9000"
MINE = "http://127.0.0.1:9999"


@pytest.mark.parametrize(
    ("own", "is_own"),
    [
        ({}, False),
        ({ACCESS_KEY: "x"}, False),
        ({ENDPOINT_URL: LOCAL}, False),
        ({ROOT_URL: "s3://segvigen-store/a", RAW_URL: "s3://segvigen-raw"}, False),
        ({RAW_URL: "file:///meshes"}, False),
        ({ROOT_URL: "file:///a", RAW_URL: "file:///b"}, False),
        ({ROOT_URL: "s3://a", RAW_URL: "s3://b"}, True),
        ({ROOT_URL: "s3://a", RAW_URL: "file:///b"}, True),
        ({ROOT_URL: "s3://a", RAW_URL: "s3://b", ENDPOINT_URL: MINE}, True),
        ({ROOT_URL: "s3://segvigen-store", RAW_URL: "s3://b", ENDPOINT_URL: MINE}, True),
    ],
)
def test_a_bucket_is_the_callers_unless_it_is_one_of_the_stacks(own, is_own):
    assert is_own_store(own, LOCAL) is is_own


@pytest.mark.parametrize(
    ("own", "missing"),
    [
        ({RAW_URL: "s3://b"}, ROOT_URL),
        ({ROOT_URL: "s3://a"}, RAW_URL),
        ({ROOT_URL: "s3://a", RAW_URL: "s3://segvigen-raw"}, RAW_URL),
        ({ENDPOINT_URL: MINE}, ROOT_URL),
        ({ENDPOINT_URL: MINE, ROOT_URL: "s3://a"}, RAW_URL),
    ],
)
def test_half_here_and_half_there_is_refused_with_the_hint(own, missing):
    with pytest.raises(StackError, match=f"set {missing} to a bucket on your server"):
        is_own_store(own, LOCAL)


def test_label_studio_needs_keys_that_are_named():
    assert ACCESS_KEY in describe_key_source({ROOT_URL: "s3://a"})
    assert describe_key_source({ROOT_URL: "s3://a", ACCESS_KEY: "x"}) == ""
