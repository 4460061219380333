"""The whole configuration of a segmenter, and what names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from segvigen_model.config.clicks import (
    ClickDecodingConfig,
    CropConfig,
    FusionWeights,
    MaskProposalConfig,
    MaskSelectionConfig,
)
from segvigen_model.config.fields import Count, check_fields, find_changed_settings
from segvigen_model.config.parts import (
    AutoPromptConfig,
    EditConfig,
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

ALGORITHM_VERSION = 2  # raised when labels change although weights and configuration do not


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """Bounds on memory. No label depends on them, so the digest leaves them out.

    Attributes:
        max_batch_tokens: latent tokens that the flow takes at once.
        max_decoded_voxels: voxels that the decoder takes at once.
        max_batch_questions: clicked parts that the patch network answers at once.
        num_kept_crops: sets of clicks on one asset whose crops are kept, about 60 MB each.
    """

    max_batch_tokens: Count = 65_536
    max_decoded_voxels: Count = 2_000_000
    max_batch_questions: Count = 16
    num_kept_crops: Count = 4

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class SegmenterConfig:
    """Every tunable of the segmenter; see the branches."""

    patches: PatchConfig = field(default_factory=PatchConfig)
    components: ComponentConfig = field(default_factory=ComponentConfig)
    regions: RegionMergingConfig = field(default_factory=RegionMergingConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    proposals: MaskProposalConfig = field(default_factory=MaskProposalConfig)
    selection: MaskSelectionConfig = field(default_factory=MaskSelectionConfig)
    clicks: ClickDecodingConfig = field(default_factory=ClickDecodingConfig)
    fusion: FusionWeights = field(default_factory=FusionWeights)
    auto_prompts: AutoPromptConfig = field(default_factory=AutoPromptConfig)
    voting: MaskVotingConfig = field(default_factory=MaskVotingConfig)
    merging: MergingConfig = field(default_factory=MergingConfig)
    edits: EditConfig = field(default_factory=EditConfig)
    guided: GuidedConfig = field(default_factory=GuidedConfig)
    palette: PaletteConfig = field(default_factory=PaletteConfig)
    limits: LimitConfig = field(default_factory=LimitConfig)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def digest(self) -> str:
        """Hash of all settings that labels depend on, 16 hexadecimal digits."""
        settings = asdict(self)
        del settings["limits"]  # no label depends on it
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def summary(self) -> dict[str, Any]:
        """For provenance: the digest, and the settings that differ from the defaults."""
        return {"digest": self.digest, "changed": find_changed_settings(self, SegmenterConfig())}
