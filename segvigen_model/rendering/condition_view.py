"""The picture that the released model is conditioned on, from the official scripts' fixed camera.

`render_view` shades an asset on a transparent ground: true alpha, so that no network has to guess
the background away.
Departs from paper: own renderer on the CPU instead of Blender's path tracer, so no mirror images,
normal maps or bounced light.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.coords import mesh_to_unit
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.strays import fit_mesh_frame
from segvigen_model.rendering.lighting import REFLECTANCE, apply_tone_mapping, compute_irradiance
from segvigen_model.rendering.rasterizer import (
    Camera,
    Hits,
    compute_depth_limit,
    project_triangles,
    rasterize,
)
from segvigen_model.types import AssetMesh, BoolArray, ByteArray, FloatArray, IntArray, Material

# data_toolkit/transforms.json of Nelipot-Lee/SegviGen (MIT), Blender's axes turned to glTF's.
OFFICIAL_CAMERA = Camera((-0.9338021874427795, 0.2755555510520935, 1.7470210790634155))
OFFICIAL_PIXELS = 512
SUPERSAMPLES = 2  # per pixel and axis
MAX_LAYERS = 8  # transparent layers that are seen through


def render_view(
    mesh: AssetMesh, camera: Camera = OFFICIAL_CAMERA, pixels: int = OFFICIAL_PIXELS
) -> ByteArray:
    """Shade an asset as the model's condition picture.

    Args:
        mesh: the asset.
        camera: from where, unit frame.
        pixels: side of the square picture.

    Returns:
        (pixels, pixels, 4) uint8 RGBA, straight alpha, display colours.
    """
    triangles = _compute_unit_triangles(mesh)
    size = pixels * SUPERSAMPLES
    corners = project_triangles(triangles, camera, size)
    light = np.zeros((size, size, 3))
    opacity = np.zeros((size, size))
    hits = rasterize(corners, size)
    for _ in range(MAX_LAYERS):
        seen = hits.is_hit & (opacity < 1.0)
        if not seen.any():
            break
        color, alpha = _shade_layer(mesh, triangles, hits, seen, camera)
        share = alpha * (1.0 - opacity[seen])
        light[seen] += share[:, None] * color
        opacity[seen] += share
        # Only where this layer lets light through is there a next one.
        limit = np.where(hits.is_hit & (opacity < 1.0), compute_depth_limit(hits), 0.0)
        hits = rasterize(corners, size, limit)
    mean_light, cover = _downsample(light, pixels), _downsample(opacity[..., None], pixels)
    color = _encode_srgb(mean_light / np.maximum(cover, 1e-6)) * (cover > 0)
    picture: ByteArray = np.rint(255.0 * np.concatenate([color, cover], axis=2)).astype(np.uint8)
    return picture


def _compute_unit_triangles(mesh: AssetMesh) -> FloatArray:
    """(F, 3, 3) corners, unit frame; the frame is that of the used vertices, as for voxels."""
    if not mesh.num_faces:
        raise AssetRejected("no_faces", "the mesh has no faces to draw; give one with triangles")
    return mesh_to_unit(mesh.triangles, fit_mesh_frame(mesh))


def _shade_layer(
    mesh: AssetMesh, triangles: FloatArray, hits: Hits, seen: BoolArray, camera: Camera
) -> tuple[FloatArray, FloatArray]:
    """Linear radiance (N, 3) and alpha (N,) of the seen pixels."""
    face, weights = hits.face[seen], hits.weights[seen]
    base = _compute_base_colors(mesh, face, weights)
    points = np.einsum("nc,nck->nk", weights, triangles[face])
    viewpoint = np.asarray(camera.position)
    normals = _interpolate_normals(mesh, triangles[face], face, weights, viewpoint - points)
    light = compute_irradiance(points, normals, triangles)[:, None]
    emissive = np.array([m.emissive_factor for m in mesh.materials])[mesh.face_material[face]]
    glow = np.where(_has_emissive(mesh)[mesh.face_material[face], None], emissive, 0.0)
    matt = REFLECTANCE + (1.0 - REFLECTANCE) * base[:, :3]
    return matt * light + glow, base[:, 3]


def _has_emissive(mesh: AssetMesh) -> BoolArray:
    """(M,) whether a material glows all over; glowing textures are left out."""
    return np.array([m.emissive_texture is None for m in mesh.materials])


def _interpolate_normals(
    mesh: AssetMesh,
    corners: FloatArray,
    face: IntArray,
    weights: FloatArray,
    to_viewer: FloatArray,
) -> FloatArray:
    """(N, 3) unit normals of the side that is seen: interpolated, or the faces' own."""
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat[(flat * to_viewer).sum(axis=1) < 0.0] *= -1.0  # both sides of a face are visible
    normals = flat.copy()
    if mesh.vertex_normals is not None:
        normals = np.einsum("nc,nck->nk", weights, mesh.vertex_normals[mesh.faces[face]])
        normals[(normals * flat).sum(axis=1) < 0.0] *= -1.0
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 1e-6, normals, flat)
    unit: FloatArray = normals / np.maximum(np.linalg.norm(normals, axis=1)[:, None], 1e-30)
    return unit


def _compute_base_colors(mesh: AssetMesh, face: IntArray, weights: FloatArray) -> FloatArray:
    """(N, 4) linear base colour and alpha under the rules of each material's alpha mode."""
    colors = np.ones((len(face), 4))
    uv = None
    if mesh.corner_uv is not None:
        uv = np.einsum("nc,nck->nk", weights, mesh.corner_uv[face])
    material = mesh.face_material[face]
    for index in np.unique(material):
        rows = np.flatnonzero(material == index)
        colors[rows] = _sample_material_colors(
            mesh.materials[index], None if uv is None else uv[rows]
        )
    if mesh.vertex_colors is not None:
        corners = mesh.vertex_colors[mesh.faces[face]] / 255.0
        corners[..., :3] = _decode_srgb(corners[..., :3])
        colors *= np.einsum("nc,nck->nk", weights, corners)
    for index in np.unique(material):
        rows = np.flatnonzero(material == index)
        colors[rows, 3] = _apply_alpha_mode(mesh.materials[index], colors[rows, 3])
    return colors


def _sample_material_colors(material: Material, uv: FloatArray | None) -> FloatArray:
    factor = np.asarray(material.base_color_factor, np.float64)
    if material.base_color_texture is None or uv is None:
        return factor
    texels = _sample_texture(material.base_color_texture, uv) / 255.0
    texels[:, :3] = _decode_srgb(texels[:, :3])
    colors: FloatArray = texels * factor
    return colors


def _apply_alpha_mode(material: Material, alpha: FloatArray) -> FloatArray:
    if material.alpha_mode == "MASK":
        return (alpha >= material.alpha_cutoff).astype(np.float64)
    return np.clip(alpha, 0.0, 1.0) if material.alpha_mode == "BLEND" else np.ones_like(alpha)


def _sample_texture(texture: ByteArray, uv: FloatArray) -> FloatArray:
    """(N, C) float64 texels 0..255: bilinear, repeated, texel centres at halves."""
    height, width = texture.shape[:2]
    x = np.nan_to_num(uv[:, 0]) % 1.0 * width - 0.5
    y = np.nan_to_num(uv[:, 1]) % 1.0 * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    x0, x1, y0, y1 = left % width, (left + 1) % width, top % height, (top + 1) % height
    upper = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    lower = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    mixed: FloatArray = upper * (1 - fy) + lower * fy
    return mixed


def _decode_srgb(srgb: FloatArray) -> FloatArray:
    """Display values 0..1 -> linear light (sRGB)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _encode_srgb(radiance: FloatArray) -> FloatArray:
    """Linear light -> display values 0..1 (sRGB)."""
    x = apply_tone_mapping(radiance)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def _downsample(image: FloatArray, pixels: int) -> FloatArray:
    """(kS, kS, C) -> (S, S, C) by averaging."""
    k = len(image) // pixels
    return np.asarray(image.reshape(pixels, k, pixels, k, -1).mean(axis=(1, 3)))
