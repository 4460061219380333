"""Tunables of whole partitions: automatic prompts, merging, edits, painted views, colourings."""

from __future__ import annotations

from dataclasses import dataclass

from segvigen_model.config.fields import (
    Count,
    Interval,
    Number,
    Positive,
    Probability,
    Real,
    Share,
    Weight,
    check_fields,
    require,
)

GRANULARITIES = ("fine", "medium", "coarse")


@dataclass(frozen=True, slots=True)
class AutoPromptConfig:
    """Automatic prompting: tiled crops and clicks all over a single shell.

    Attributes:
        num_patches: that parts are grown from.
        num_clicks: that are tried.
        crop_share: of the surface, in one crop.
        num_crop_patches: of a crop.
        core_share: of a crop; the rest overlaps with others.
        max_crops: of an object.
        max_faces: of a mesh. Above, reading crops everywhere takes longer than a proposal may.
    """

    num_patches: Count = 1024
    num_clicks: Count = 96
    crop_share: Share = 0.15
    num_crop_patches: Count = 256
    core_share: Share = 0.7
    max_crops: Count = 40
    max_faces: Count = 100_000

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class MaskVotingConfig:
    """Mask-consensus affinity: agreement of automatic clicks' masks on two patches.

    Attributes:
        share_range: the share of common masks is clipped to this before its logit is taken.
        min_masks: that hold a patch; with fewer the crops' affinity alone decides.
        weight: of the masks' logits against the crops'.
        bias: logits. Masks of neighbouring clicks overlap more often than these clicks are of one
            part; with this one set of merging thresholds serves both.
    """

    share_range: Interval = (0.01, 0.99)
    min_masks: Weight = 0.5
    weight: Share = 0.3
    bias: Real = -0.8

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class GranularityConfig:
    """One granularity of a partition.

    Attributes:
        merge_threshold: mean probability of being different parts above which two groups of
            patches stay apart.
        min_part_area: share below which a part is a fragment; PartSAM's rule is 0.003.
    """

    merge_threshold: Probability
    min_part_area: Share

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class MergingConfig:
    """Growing parts from patches, for each granularity; each continues from the finer one.

    Thresholds are flat from .35 to .50 on 160 development objects (fused .52-.54, others .75-.76)
    and on 160 of sources that the network had not seen.

    Attributes:
        fine, medium, coarse: granularities; thresholds and areas must not fall.
        small_of_typical: a part is a fragment only if it is below this share of a typical part too,
            so that hundreds of equal parts stay.
        component_reserve: logits taken from patches of different components, which join less
            readily (.70 instead of .60): worth .01 to .02 on two sets of development objects, and
            nothing on a single shell.
    """

    fine: GranularityConfig = GranularityConfig(0.25, 0.001)
    medium: GranularityConfig = GranularityConfig(0.40, 0.002)
    coarse: GranularityConfig = GranularityConfig(0.55, 0.003)
    small_of_typical: Share = 0.25
    component_reserve: Weight = 0.6

    def __post_init__(self) -> None:
        check_fields(self)
        levels = self.list_up_to("coarse")
        for name in ("merge_threshold", "min_part_area"):
            values = [getattr(level, name) for level in levels]
            require(values == sorted(values), f"{name} falls from fine to coarse: {values}")

    def list_up_to(self, granularity: str) -> list[GranularityConfig]:
        """The granularities from "fine" to a given one.

        Raises:
            ValueError: no such granularity.
        """
        if granularity not in GRANULARITIES:
            raise ValueError(f"granularity {granularity!r} is none of {GRANULARITIES}")
        names = GRANULARITIES[: GRANULARITIES.index(granularity) + 1]
        return [getattr(self, name) for name in names]


@dataclass(frozen=True, slots=True)
class EditConfig:
    """Splits and clicks on a partition.

    Attributes:
        split_threshold: as `merge_threshold`, for a split without a wanted number of pieces; a
            little below the fine granularity, so that a split finds something.
        min_piece_share: of the part; smaller pieces join a neighbour unless asked for, and a
            click leaves so much of the part that it divides.
        max_auto_pieces: of a split without a number; more is easier done by a second split.
    """

    split_threshold: Probability = 0.20
    min_piece_share: Share = 0.02
    max_auto_pieces: Count = 6

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class GuidedConfig:
    """Partitions after a painted view.

    Attributes:
        front_pixels: side of the picture of the faces that the default model's view shows.
        max_colors: of a painted view; more means that it is shaded or smoothed.
        pixels_per_color: a colour on fewer than one of so many pixels is noise.
        color_tolerance: RGB steps 0..255; what is further from all part colours is background.
        max_clicks: positive, and negative, that stand for a painted part.
        min_seen_share: of a patch's visible pixels in one colour, to click on it.
        seen_weight: logits of a patch that is seen in one colour only.
        min_color_share: the flow's colours are clipped to this before their logits are taken.
        claim_share: of a hidden part, that painted parts must claim to take it.
        smoothness: weight of borders against probabilities in the graph cut.
        fold_discount: share of a border's weight that the strongest fold takes away.
        num_sweeps: of alpha expansion, at most.
    """

    front_pixels: Count = 512
    max_colors: Count = 64
    pixels_per_color: Count = 4000
    color_tolerance: Weight = 40.0
    max_clicks: Count = 10
    min_seen_share: Share = 0.5
    seen_weight: Weight = 4.0
    min_color_share: Probability = 0.02
    claim_share: Share = 0.5
    smoothness: Weight = 0.5
    fold_discount: Share = 0.9
    num_sweeps: Count = 3

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class PaletteConfig:
    """Decoding a colouring whose palette is unknown: mean shift in RGB, channels 0..1.

    Attributes:
        radius: RGB distance of the flat kernel; best of the prototype's decodings.
        min_voxels: smaller connected pieces join their neighbours.
        num_bins: of the colour histogram along each channel.
        max_seeds: most frequent colours that the shift starts from.
        num_steps: of the shift, at most.
    """

    radius: Positive = 0.3
    min_voxels: Count = 6
    num_bins: Count = 16
    max_seeds: Count = 150
    num_steps: Number = 20

    def __post_init__(self) -> None:
        check_fields(self)
