"""What the reviewer sees and can say: the label config, the labels of one task, their meaning.

"part k" on a point means: this point belongs to part k. Each "new part" label makes one part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segvigen_model.types import ClickKind
from tasks.review.colors import NEW_PART_COLOR, NOT_OBJECT_COLOR, hex_color, part_colors

CLICK, SHEET, VERDICT, NOTE, VIEWER = "click", "sheet", "verdict", "note", "viewer"
VERBS, PREVIEW = "verbs", "preview"
PREVIEW_LABEL = "preview"  # one mask over the whole sheet; a picture, never geometry
PREVIEW_COLOR = "#ff2ad4"  # not among the part colours
NEW_PART_LABELS = ("new part", "new part 2", "new part 3")
NOT_OBJECT_LABEL = "not an object"
NEW_PART_HOTKEYS = ("n", "m", "j")  # without one the editor would give any free key
# A part's digit is its hotkey; then letters that neither a verdict nor the editor itself uses.
PART_HOTKEYS = "0123456789qwertyopsdgklzc"
NOT_OBJECT_HOTKEY = "b"
MAX_TITLE_CHARS = 80
LAST_ROUND = "last round: accept or reject"
VERBS_HINT = "merge 1 2 | split 3 into 2 | name 0 left leg | category 0 leg  (Enter)"

# Labels without smart="false" add a smart tool: the smart button would go on to the brush.
LABEL_CONFIG = f"""<View>
  <View style="display:flex;gap:24px;align-items:center;flex-wrap:wrap">
    <Header value="$title" size="5"/>
    <Choices name="{VERDICT}" toName="{SHEET}" choice="single-radio" showInline="true"
             required="true" requiredMessage="Say accept, refine or reject">
      <Choice value="accept" hotkey="a" hint="every part is right"/>
      <Choice value="refine" hotkey="f" hint="I clicked what is wrong; show me the next round"/>
      <Choice value="reject" hotkey="x" hint="this asset is of no use"/>
    </Choices>
  </View>
  <KeyPointLabels name="{CLICK}" toName="{SHEET}" value="$parts" strokeWidth="5" opacity="1"
                  choice="single" smart="true"/>
  <View style="display:none">
    <BrushLabels name="{PREVIEW}" toName="{SHEET}" smart="false">
      <Label value="{PREVIEW_LABEL}" background="{PREVIEW_COLOR}"/>
    </BrushLabels>
  </View>
  <View style="display:grid;grid-template-columns:minmax(0,5fr) minmax(0,3fr);gap:12px">
    <View>
      <Image name="{SHEET}" value="$sheet" zoom="true" zoomControl="true" defaultzoom="auto"
             rotateControl="false" brightnessControl="false" contrastControl="false"/>
    </View>
    <View>
      <HyperText name="{VIEWER}" value="$viewer" inline="true"/>
      <TextArea name="{VERBS}" toName="{SHEET}" rows="1" maxSubmissions="100" editable="true"
                placeholder="{VERBS_HINT}"/>
      <TextArea name="{NOTE}" toName="{SHEET}" rows="1" maxSubmissions="1" editable="true"
                placeholder="what is wrong, or why rejected"/>
    </View>
  </View>
</View>
"""


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """What a keypoint label says; fields as in segvigen_model.types.Click."""

    kind: ClickKind
    part: int = -1
    group: int = 0


def part_label(part: int) -> str:
    """The label of a part id."""
    return f"part {part}"


def label_meaning(label: str, num_parts: int) -> LabelMeaning | None:
    """Understand a label's text; None when it is none of this task's labels."""
    if label == NOT_OBJECT_LABEL:
        return LabelMeaning(ClickKind.NOT_OBJECT)
    if label in NEW_PART_LABELS:
        return LabelMeaning(ClickKind.NEW_PART, group=NEW_PART_LABELS.index(label))
    match = re.fullmatch(r"part (0|[1-9][0-9]{0,5})", label)
    if match is None or int(match[1]) >= num_parts:
        return None
    return LabelMeaning(ClickKind.BELONGS, part=int(match[1]))


def task_labels(num_parts: int, slots: Sequence[int] | None = None) -> list[dict[str, str]]:
    """Value of `$parts`: one label per part with colour and hotkey, then the special ones.

    Args:
        num_parts: parts shown.
        slots: place of each part's colour in the sequence; see `part_colors`.
    """
    labels = []
    for part, color in enumerate(part_colors(num_parts, slots)):
        hotkey = PART_HOTKEYS[part] if part < len(PART_HOTKEYS) else ""
        labels.append(_label(part_label(part), hex_color(color), hotkey))
    for name, hotkey in zip(NEW_PART_LABELS, NEW_PART_HOTKEYS, strict=True):
        labels.append(_label(name, hex_color(NEW_PART_COLOR), hotkey))
    labels.append(_label(NOT_OBJECT_LABEL, hex_color(NOT_OBJECT_COLOR), NOT_OBJECT_HOTKEY))
    return labels


def task_title(name: str, round_: int, num_parts: int) -> str:
    """One line above the sheet; the name is untrusted and is cut and cleaned."""
    clean = "".join(char if char.isprintable() else "?" for char in name)[:MAX_TITLE_CHARS]
    return f"{clean or 'asset'} | round {round_ + 1} | {num_parts} parts"


def viewer_html(uri: str) -> str:
    """Value of `$viewer`: the 3D page that Label Studio serves from the bucket itself."""
    return (
        f'<object type="text/html" data="{uri}" aria-label="3D viewer" '
        'style="width:100%;height:620px;border:0"></object>'
    )


def _label(value: str, color: str, hotkey: str) -> dict[str, str]:
    label = {"value": value, "background": color}
    return {**label, "hotkey": hotkey} if hotkey else label
