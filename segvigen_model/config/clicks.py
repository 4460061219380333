"""Tunables of answering clicks: crops, mask proposals and selection, and the flow's weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segvigen_model.config.fields import (
    Count,
    Gain,
    Interval,
    Positive,
    Probability,
    Share,
    Weight,
    check_fields,
    require,
)


@dataclass(frozen=True, slots=True)
class CropConfig:
    """Multi-scale crops: the surface round positive clicks, cut into patches and read again.

    Attributes:
        shares: of the surface in each crop, largest first.
        num_patches: of a crop.
        min_gain: patches of a crop by those of the whole there; coarser crops are not read.
        max_faces: of a crop. Above, finding and cutting it takes longer than reading it: seconds
            a click.
    """

    shares: tuple[Share, ...] = (0.35, 0.12)
    num_patches: Count = 384
    min_gain: Gain = 1.5
    max_faces: Count = 40_000

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class MaskProposalConfig:
    """Where a click's logits are cut into masks that the selector chooses among.

    The best cut on 838 parts of sources that the network had not seen is the lower the less is
    known: .12 after one click, .31 after ten. Components that nobody clicked need more: it costs
    nothing on average, and one click takes what is connected.

    Attributes:
        cut, cut_drop: the plain mask is cut at `cut - cut_drop / sqrt(positive clicks)`.
        cut_elsewhere: probability at which components without a click are cut.
        level_cuts: probabilities of further level sets.
        group_start, group_step, num_groups: same-part affinities, falling from the first by the
            step, down to which patches are joined into nested groups.
        smoothing: share of the groups' mean logits in the smoothed logits.
        smoothing_stride: every so many group levels take part in smoothing.
    """

    cut: Probability = 0.4
    cut_drop: Weight = 0.28
    cut_elsewhere: Probability = 0.4
    level_cuts: tuple[Probability, ...] = (0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    group_start: Probability = 0.97
    group_step: Positive = 0.03
    num_groups: Count = 32
    smoothing: Share = 0.35
    smoothing_stride: Count = 3

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.cut > self.cut_drop, f"cut {self.cut} must exceed cut_drop {self.cut_drop}")
        last = self.group_levels[-1]
        require(
            last > 0, f"group levels fall to {last:g}; fewer or smaller steps keep them above 0"
        )

    @property
    def group_levels(self) -> tuple[float, ...]:
        """Affinities down to which groups join, falling."""
        steps = range(self.num_groups)
        return tuple(self.group_start - self.group_step * step for step in steps)

    def compute_cut(self, num_positive: int) -> float:
        """Probability at which the plain mask is cut after so many positive clicks."""
        return self.cut - self.cut_drop / math.sqrt(max(num_positive, 1))


@dataclass(frozen=True, slots=True)
class MaskSelectionConfig:
    """When the mask selector decides.

    Attributes:
        min_clicked_share: share that the clicked components hold at least. Below, choosing gained
            nothing on sources in turn (-.01 to +.00 at one click where components hold under a
            twentieth), and what it learns of components does not carry over to other meshes.
    """

    min_clicked_share: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ClickDecodingConfig:
    """How clicks become the probability of a part.

    Attributes:
        firm_logit: at least, of a patch inside the chosen mask; its negative outside.
        careful_cut_elsewhere: probability at which components without a click are cut, unless the
            flow decides or the clicked ones are a single shell: on meshes of other makers most of
            what one click took of others was wrong (table in docs/experiments.md).
        probability_range: of faces that nobody clicked.
        mask_threshold: brightness at which a one-step mask of a flow is cut; a measurement of
            the prototype. Masks are shifted so that the border is 0.5.
    """

    firm_logit: Positive = 0.5
    careful_cut_elsewhere: Probability = 0.6
    probability_range: Interval = (0.001, 0.999)
    mask_threshold: Probability = 0.45

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """How much a flow's opinions count beside the patch network's: factors of their logits.

    Attributes:
        mask: of the mask that clicks give; more lowers the IoU of fused development objects at
            ten clicks.
        draws: of the draws' agreement that two patches are of one part.
        decisive: weight from which the flow decides by itself: selection and crops were learned
            without one.
        mask_range, draw_range: probabilities are clipped to these before their logits are taken.
    """

    mask: Weight = 0.1
    draws: Weight = 0.1
    decisive: Weight = 0.5
    mask_range: Interval = (0.02, 0.98)
    draw_range: Interval = (0.05, 0.95)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def is_mask_decisive(self) -> bool:
        """Whether the flow decides about clicked parts by itself."""
        return self.mask >= self.decisive

    @property
    def are_draws_decisive(self) -> bool:
        """Whether the flow decides about whole partitions by itself."""
        return self.draws >= self.decisive
