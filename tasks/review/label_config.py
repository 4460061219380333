"""What the reviewer sees and can say: the label config, the labels of one task, their meaning.

"part k" on a point means: this point belongs to part k. Each "new part" label makes one part.
"""

from __future__ import annotations

CLICK, SHEET, VERDICT, NOTE, VIEWER = "click", "sheet", "verdict", "note", "viewer"
# "verbs" stays: stored annotations name their field of edit commands so.
COMMANDS, PREVIEW = "verbs", "preview"
PREVIEW_LABEL = "preview"  # one mask over the whole sheet; a picture, never geometry
PREVIEW_COLOR = "#ff2ad4"  # not among the part colours
MAX_TITLE_CHARS = 80
LAST_ROUND = "last round: accept or reject"
COMMANDS_HINT = "merge 1 2 | split 3 into 2 | name 0 left leg | category 0 leg  (Enter)"

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
      <TextArea name="{COMMANDS}" toName="{SHEET}" rows="1" maxSubmissions="100" editable="true"
                placeholder="{COMMANDS_HINT}"/>
      <TextArea name="{NOTE}" toName="{SHEET}" rows="1" maxSubmissions="1" editable="true"
                placeholder="what is wrong, or why rejected"/>
    </View>
  </View>
</View>
"""


def format_task_title(name: str, round_: int, num_parts: int) -> str:
    """One line above the sheet; the name is untrusted and is cut and cleaned."""
    clean = "".join(char if char.isprintable() else "?" for char in name)[:MAX_TITLE_CHARS]
    return f"{clean or 'asset'} | round {round_ + 1} | {num_parts} parts"


def make_viewer_html(uri: str) -> str:
    """Value of `$viewer`: the 3D page that Label Studio serves from the bucket itself."""
    return (
        f'<object type="text/html" data="{uri}" aria-label="3D viewer" '
        'style="width:100%;height:620px;border:0"></object>'
    )
