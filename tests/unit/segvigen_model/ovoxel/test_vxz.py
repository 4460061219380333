from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segvigen_model.errors import SegvigenError
from segvigen_model.ovoxel import mesh_to_ovoxel, vxz
from segvigen_model.ovoxel.vxz_order import decode_morton, encode_morton

OPTIONS = {
    "filter_name": st.sampled_from(vxz.FILTERS),
    "compression": st.sampled_from(vxz.COMPRESSIONS),
    "interleave": st.sampled_from(vxz.INTERLEAVES),
    "chunk_size": st.sampled_from([2, 8, 32, 256]),
}


def voxels(seed, count, extent):
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(0, extent, size=(count, 3)), axis=0)
    coords = coords[rng.permutation(len(coords))]
    base = (coords * 3 % 256).astype(np.uint8)
    return coords, {"base_color": base, "flag": rng.integers(0, 256, len(coords), dtype=np.uint8)}


def by_place(coords, attributes):
    order = np.lexsort(np.asarray(coords).T[::-1])
    columns = {name: v.reshape(len(order), -1)[order] for name, v in attributes.items()}
    return np.asarray(coords)[order], columns


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 300),
    extent=st.sampled_from([1, 3, 40, 700]),
    options=st.fixed_dictionaries(OPTIONS),
)
def test_round_trip_with_every_option(seed, count, extent, options):
    coords, attributes = voxels(seed, count, extent)
    data = vxz.write_vxz(coords, attributes, **options)
    found = vxz.read_vxz(data)
    wanted, columns = by_place(coords, attributes)
    got, values = by_place(found.coords, found.attributes)
    np.testing.assert_array_equal(got, wanted)
    for name, column in columns.items():
        np.testing.assert_array_equal(values[name], column)
    assert data == vxz.write_vxz(found.coords, found.attributes, **options), (
        "same voxels, same bytes"
    )


def test_ovoxel_round_trip(sphere):
    ovoxel = mesh_to_ovoxel(sphere, 40)
    again = vxz.to_ovoxel(vxz.read_vxz(vxz.write_ovoxel(ovoxel, chunk_size=16)), 40, ovoxel.frame)
    for name in ("coords", "dual", "intersected", "base_color", "metallic", "roughness", "alpha",
                 "emissive", "normal"):  # fmt: skip
        np.testing.assert_array_equal(getattr(again, name), getattr(ovoxel, name), err_msg=name)
    content = vxz.read_vxz(vxz.write_ovoxel(ovoxel))
    assert list(content.attributes) == [
        "base_color", "metallic", "roughness", "emissive", "alpha", "normal", "dual_vertices",
        "intersected",
    ]  # fmt: skip
    with pytest.raises(vxz.CorruptVxz, match="outside a 20"):
        vxz.to_ovoxel(content, 20, ovoxel.frame)
    with pytest.raises(vxz.CorruptVxz, match="'metallic'"):
        vxz.to_ovoxel(vxz.VxzFile(content.coords, {"base_color": content.attributes["normal"]}), 40,
                      ovoxel.frame)  # fmt: skip


def test_voxels_without_attributes():
    coords = np.array([[5, 6, 7], [300, 0, 0]])
    for interleave in vxz.INTERLEAVES[:2]:
        found = vxz.read_vxz(vxz.write_vxz(coords, {}, interleave=interleave))
        assert sorted(map(tuple, found.coords.tolist())) == [(5, 6, 7), (300, 0, 0)]


def test_morton_codes():
    assert encode_morton(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0]])).tolist() == [
        4,
        2,
        1,
        32,
    ]
    cells = np.random.default_rng(0).integers(0, 2**20, size=(500, 3))
    np.testing.assert_array_equal(decode_morton(encode_morton(cells)), cells)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coords": np.zeros((0, 3), int)}, "no voxels"),
        ({"coords": np.array([[1, 1, 1], [1, 1, 1]])}, "twice"),
        ({"coords": np.array([[-1, 0, 0]])}, "coordinates"),
        ({"chunk_size": 3}, "chunk size"),
        ({"filter_name": "magic"}, "magic"),
    ],
)
def test_the_writer_refuses(change, words):
    arguments = {"coords": np.array([[0, 0, 0]]), "attributes": {}} | change
    with pytest.raises((ValueError, SegvigenError), match=words):
        vxz.write_vxz(**arguments)


def rewritten(data, change):
    start = struct.unpack_from(">I", data, 4)[0]
    header = json.loads(data[8:start])
    change(header)
    text = json.dumps(header).encode()
    return b"VXZ\0" + struct.pack(">I", 8 + len(text)) + text + data[start:]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(num_voxel=10**12),
        lambda h: h.update(num_voxel=3),
        lambda h: h.update(num_voxel="4"),
        lambda h: h.update(chunk_size=7),
        lambda h: h.update(chunk_size=2**40),
        lambda h: h.update(filter="none "),
        lambda h: h.update(compression=["lzma"]),
        lambda h: h.update(attr={"base_color": 3}),
        lambda h: h.update(attr=[["base_color", -1]]),
        lambda h: h.update(attr=[["base_color", 200], ["base_color", 200]]),
        lambda h: h.update(attr=[[f"a{i}", 250] for i in range(5)]),
        lambda h: h.update(num_voxel=2**25),
        lambda h: h.update(chunks=[]),
        lambda h: h.update(chunks=h["chunks"] * 2),
        lambda h: h["chunks"][0].update(ptr=[0, 10**9]),
        lambda h: h["chunks"][0].update(svo=[-1, 4]),
        lambda h: h["chunks"][0].pop("svo"),
        lambda h: h["chunks"][0].update(idx=[0, 0]),
        lambda h: h["chunks"][0].update(idx=[0, 0, 10**15]),
        lambda h: h.clear(),
    ],
)
def test_wrong_headers_are_refused(change):
    coords, attributes = voxels(1, 40, 20)
    data = vxz.write_vxz(coords, attributes, chunk_size=8)
    with pytest.raises(vxz.CorruptVxz):
        vxz.read_vxz(rewritten(data, change))


@pytest.mark.parametrize("data", [b"", b"VXZ", b"PK\x03\x04" * 9, b"VXZ\0\xff\xff\xff\xff{}"])
def test_other_files_are_refused(data):
    with pytest.raises(vxz.CorruptVxz):
        vxz.read_vxz(data)


@pytest.mark.parametrize("compression", ["lzma", "deflate", "zstd"])
def test_bombs_are_refused_before_they_unfold(compression):
    from segvigen_model.ovoxel.vxz_streams import compress

    coords, attributes = voxels(1, 40, 20)
    data = vxz.write_vxz(coords, attributes, compression=compression)
    bomb = compress(bytes(60_000_000), compression, 1)
    start = struct.unpack_from(">I", data, 4)[0]

    def point(header):
        header["chunks"][0] |= {"ptr": [0, len(bomb)], "svo": [0, len(bomb)]}

    bad = rewritten(data[:start] + bomb, point)
    tracemalloc.start()
    try:
        with pytest.raises(vxz.CorruptVxz):
            vxz.read_vxz(bad)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000, "a tenth of what the stream unfolds to"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), options=st.fixed_dictionaries(OPTIONS))
def test_damaged_files_raise_our_error_or_read(seed, options):
    rng = np.random.default_rng(seed)
    coords, attributes = voxels(seed % 7, 60, 30)
    data = bytearray(vxz.write_vxz(coords, attributes, **options))
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data)))
        match int(rng.integers(3)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at : at + int(rng.integers(1, 30))]
            case _:
                data[at:at] = bytes(rng.integers(0, 256, size=5, dtype=np.uint8))
    try:
        found = vxz.read_vxz(bytes(data))
    except SegvigenError:
        return
    assert all(len(values) == len(found.coords) for values in found.attributes.values())


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["lzma", "none", "neighbor", "base_color", "", "\ud800"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(node, path=()):
    """Every place in a JSON document."""
    yield path
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*path, key))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), options=st.fixed_dictionaries(OPTIONS), value=ANYTHING)
def test_any_value_anywhere_in_the_header_is_survived(data, options, value):
    written = vxz.write_vxz(*voxels(1, 20, 20), **options)
    header = json.loads(written[8 : struct.unpack_from(">I", written, 4)[0]])
    path = data.draw(st.sampled_from([each for each in places(header) if each]))

    def change(document):
        node = document
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    try:
        found = vxz.read_vxz(rewritten(written, change))
    except SegvigenError:
        return
    assert all(len(values) == len(found.coords) for values in found.attributes.values())


@pytest.mark.parametrize("num_lost", [1, 7, 40])
def test_cut_files_are_refused(num_lost):
    data = vxz.write_vxz(*voxels(1, 40, 20))
    with pytest.raises(vxz.CorruptVxz):
        vxz.read_vxz(data[:-num_lost])


def test_a_file_that_would_fill_the_memory_is_refused_by_its_header():
    data = vxz.write_vxz(*voxels(1, 40, 20))
    wide = [[f"a{index}", 200] for index in range(5)]
    with pytest.raises(vxz.CorruptVxz, match="4000000 voxels of 1000 channels take more than"):
        vxz.read_vxz(rewritten(data, lambda header: header.update(num_voxel=4_000_000, attr=wide)))
