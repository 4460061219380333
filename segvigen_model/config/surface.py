"""Tunables of the geometry below the networks: patches, components, segments, voxel transfer."""

from __future__ import annotations

from dataclasses import dataclass

from segvigen_model.config.fields import Count, Number, Positive, Share, Weight, check_fields


@dataclass(frozen=True, slots=True)
class PatchConfig:
    """Superfaces: small even patches of a surface, the tokens of the patch network.

    Attributes:
        count: patches of a whole object.
        max_regions: regions (component and material) that get patches of their own; smaller ones
            than the largest so many are pooled by place for the network.
        max_pieces: regions that stay apart when parts are grown, pooled for the network or not.
        normal_weight: of a normal against a position in lengths, when faces are clustered and
            when their values are blended.
        samples_per_patch: surface samples that Lloyd's algorithm moves a patch centre by.
        lloyd_steps: iterations of it.
        pool_cells: cells along each axis of the box that pooled regions are sorted into.
        num_blended: nearest patches that a face's value is blended of, besides its own.
        blend_floor: length added to the distance, so that a blend stays smooth at a centre.
    """

    count: Count = 512
    max_regions: Count = 400
    max_pieces: Count = 3000
    normal_weight: Weight = 0.05
    samples_per_patch: Count = 20
    lloyd_steps: Number = 3
    pool_cells: Count = 6
    num_blended: Count = 4
    blend_floor: Positive = 1e-3

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ComponentConfig:
    """Connected components of a mesh, and which of them touch.

    Attributes:
        contact_cell: length within which two components touch.
        gap_fold: how strongly two components that merely touch are separate; 1 = surely.
        fragment_share: components below this share are no parts of their own; PartSAM's rule.
        fragment_of_typical: nor are those below this share of a typical component, if that is less:
            among hundreds of equal pieces none is a fragment.
        single_shell_share: share of one component from which a mesh counts as a single shell, a
            scan or a fused surface, where connectivity carries no information.
    """

    contact_cell: Positive = 1 / 96
    gap_fold: Share = 0.8
    fragment_share: Share = 0.003
    fragment_of_typical: Share = 0.25
    single_shell_share: Share = 0.95

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class RegionMergingConfig:
    """Cost of removing the border between two regions when geometric segments are built.

    Chosen on 40 fused training objects by the best IoU of any segment with a part: .47, against
    .42 without neck or convexity terms and .34 for merging by normals alone.

    Attributes:
        border_floor: radians, cost of a perfectly flat border.
        convex_weight: a convex fold counts this share of a concave one.
        size_power: of the smaller region's area.
        neck_power: of the border's length by the smaller perimeter.
        smoothing_steps: one-ring averages of normals, so that marching-cubes stairs do not count.
        chain_above: regions above which they are merged in chains, which is faster and not the
            exact order.
    """

    border_floor: Positive = 0.05
    convex_weight: Share = 0.6
    size_power: Weight = 0.5
    neck_power: Weight = 1.5
    smoothing_steps: Number = 2
    chain_above: Count = 20_000

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Values between voxels and faces.

    Attributes:
        sample_spacing: voxel edges between the samples of a face larger than a voxel.
    """

    sample_spacing: Positive = 0.7

    def __post_init__(self) -> None:
        check_fields(self)
