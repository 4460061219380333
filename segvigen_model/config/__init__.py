"""Every tunable of the segmenter, as one tree of frozen dataclasses.

A checkpoint stores the tree in its `config.json` (`model.segmenter`), a proposal names its digest
and the values that differ from the defaults, and `ALGORITHM_VERSION` and the digest are part of
what names a stored proposal. Functions take the branch that they need as an argument.

Three kinds of numbers are no tunables and stay named constants beside their code: the schema of
the shipped weights (radii, frequencies, levels and columns of features, widths of networks),
tolerances of arithmetic (epsilons, bounds on iterations and on sample points), and rules of stored
labels, which hold where no segmenter is loaded (`partition.hierarchy`).

The networks were trained with the defaults of `patches`, `components`, `regions` and `proposals`:
other values there are allowed, and may want networks trained anew. "Share" means share of the
surface's area, "length" means lengths over the longest side of the bounding box.
"""

from segvigen_model.config.clicks import (
    ClickDecodingConfig,
    CropConfig,
    FusionWeights,
    MaskProposalConfig,
    MaskSelectionConfig,
)
from segvigen_model.config.fields import override_settings
from segvigen_model.config.parts import (
    GRANULARITIES,
    AutoPromptConfig,
    EditConfig,
    GranularityConfig,
    GuidedConfig,
    MaskVotingConfig,
    MergingConfig,
    PaletteConfig,
)
from segvigen_model.config.surface import (
    ComponentConfig,
    PatchConfig,
    RegionMergingConfig,
    TransferConfig,
)
from segvigen_model.config.tree import ALGORITHM_VERSION, LimitConfig, SegmenterConfig

__all__ = [
    "ALGORITHM_VERSION",
    "GRANULARITIES",
    "AutoPromptConfig",
    "ClickDecodingConfig",
    "ComponentConfig",
    "CropConfig",
    "EditConfig",
    "FusionWeights",
    "GranularityConfig",
    "GuidedConfig",
    "LimitConfig",
    "MaskProposalConfig",
    "MaskSelectionConfig",
    "MaskVotingConfig",
    "MergingConfig",
    "PaletteConfig",
    "PatchConfig",
    "RegionMergingConfig",
    "SegmenterConfig",
    "TransferConfig",
    "override_settings",
]
