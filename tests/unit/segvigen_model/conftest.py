"""Small nasty meshes, tiny models with random weights, and random latents for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from segvigen_model.coords import fit_frame, mesh_to_unit, unit_to_grid
from segvigen_model.model.bundle import SegviGenModel, build_model
from segvigen_model.segmenter import Segmenter
from segvigen_model.slat_flow.image_tokens import IMAGE_SIZE, ImageTokenizer
from segvigen_model.sparse.structure import Structure
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.sampling import sample_faces
from segvigen_model.types import AssetMesh, Click, Frame, IntArray, Material

VIT_L16 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_register_tokens": 4,
    "patch_size": 16,
}
BOX_FACES = np.array(
    [
        [0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7], [0, 1, 5], [0, 5, 4],
        [2, 3, 7], [2, 7, 6], [1, 2, 6], [1, 6, 5], [0, 4, 7], [0, 7, 3],
    ]
)  # fmt: skip
BOX_CORNERS = np.array(
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], float
)


def make_box(low: tuple[float, float, float], size: tuple[float, float, float]) -> AssetMesh:
    return make_mesh(np.array(low) + BOX_CORNERS * np.array(size), BOX_FACES)


def make_mesh(vertices, faces, materials=None) -> AssetMesh:
    ids = np.zeros(len(faces), np.int32) if materials is None else np.asarray(materials, np.int32)
    return AssetMesh(
        vertices=np.asarray(vertices, np.float64),
        faces=np.asarray(faces, np.int64),
        face_material=ids,
        materials=tuple(Material(name=str(i)) for i in range(int(ids.max()) + 1)),
    )


def join_meshes(*meshes: AssetMesh) -> AssetMesh:
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets[:-1], strict=True)]
    return make_mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def make_bumpy_grid(side: int) -> AssetMesh:
    """One sheet of 2 * side^2 triangles with gentle waves."""
    x, y = np.meshgrid(np.arange(side + 1.0), np.arange(side + 1.0), indexing="ij")
    z = 2.0 * np.sin(x / 9.0) * np.cos(y / 7.0)
    vertices = np.stack([x, z, y], axis=-1).reshape(-1, 3)
    corner = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).reshape(-1)
    first = np.stack([corner, corner + 1, corner + side + 2], axis=1)
    second = np.stack([corner, corner + side + 2, corner + side + 1], axis=1)
    return make_mesh(vertices, np.concatenate([first, second]))


@pytest.fixture(scope="session")
def sheet_of() -> Callable[[int], AssetMesh]:
    """Make a wavy sheet of 2 * side^2 faces."""
    return make_bumpy_grid


@pytest.fixture
def two_boxes() -> AssetMesh:
    """Two separate boxes of different size, 24 faces."""
    return join_meshes(make_box((0, 0, 0), (1, 1, 1)), make_box((1.5, 0, 0), (0.5, 1, 1)))


@pytest.fixture
def table() -> tuple[AssetMesh, IntArray]:
    """A top on four legs that touch it, 60 faces, and the part of each face."""
    legs = [make_box((x, 0, z), (0.1, 0.9, 0.1)) for x in (0.1, 1.8) for z in (0.1, 0.8)]
    mesh = join_meshes(make_box((0, 0.9, 0), (2, 0.1, 1)), *legs)
    return mesh, np.repeat(np.arange(5), 12)


@pytest.fixture
def single_face() -> AssetMesh:
    return make_mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])


@pytest.fixture
def big_sheet() -> AssetMesh:
    return make_bumpy_grid(316)


@pytest.fixture
def split_box() -> AssetMesh:
    """A box whose every triangle has its own three vertices."""
    whole = make_box((0, 0, 0), (1, 2, 1))
    return make_mesh(whole.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3))


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    """An untrained tiny model: answers are arbitrary, guarantees must hold all the same."""
    return Segmenter(build_model("tiny"))


@pytest.fixture
def click_at() -> Callable[..., Click]:
    """Make a click on the middle of a face."""

    def make(mesh: AssetMesh, face: int, **what) -> Click:
        return Click(face=face, xyz=mesh.triangles[face].mean(axis=0), **what)

    return make


def make_voxels(mesh: AssetMesh, grid: int) -> tuple[IntArray, Frame]:
    """Voxels that the surface passes through, ascending."""
    surface, frame = measure_surface(mesh), fit_frame(mesh.vertices)
    points = sample_faces(surface.triangles, surface.areas, 0.3 / (grid * frame.scale))
    cells = unit_to_grid(mesh_to_unit(points.xyz, frame), grid)
    return np.unique(cells, axis=0).astype(np.int32), frame


@pytest.fixture
def voxelize() -> Callable[[AssetMesh, int], tuple[IntArray, Frame]]:
    return make_voxels


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., ImageTokenizer]:
    """An image model with random weights; of ViT-L/16's sizes where no others are given."""
    dinov3 = pytest.importorskip("transformers.models.dinov3_vit")

    def make(image_size: int = IMAGE_SIZE, **sizes) -> ImageTokenizer:
        config = dinov3.DINOv3ViTConfig(image_size=image_size, **{**VIT_L16, **sizes})
        return ImageTokenizer(dinov3.DINOv3ViTModel(config), image_size)

    return make


@pytest.fixture(scope="session")
def tiny_model() -> SegviGenModel:
    """Return a random model whose zero-initialised layers were drawn too; do not change it."""
    model = build_model("tiny", seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in model.list_modules().values():
        for parameter in module.parameters():
            if not bool(parameter.any()):
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def latent_structure() -> Callable[..., Structure]:
    """Return a maker of latent voxels, one count per asset."""

    def make(*counts: int) -> Structure:
        rows = []
        for asset, count in enumerate(counts):
            cells = torch.randperm(512, generator=torch.Generator().manual_seed(asset))[:count]
            xyz = torch.stack([cells // 64, cells // 8 % 8, cells % 8], dim=1)
            rows.append(torch.nn.functional.pad(xyz, (1, 0), value=asset))
        return Structure(torch.cat(rows).to(torch.int32))

    return make
