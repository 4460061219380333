// The editor around this page. Its interface is private, so every step checks that it is there.
// Without the editor this page only shows the model.

const CLICK = "click";
const SHEET = "sheet";
const COMMANDS = "verbs"; // its name in stored annotations
const POINT_WIDTH = 0.9; // of the drawn dot; percent of the sheet

// The open annotation, or null: another origin, no editor, or read-only.
function annotation() {
  try {
    const selected = parent.Htx.annotationStore.selected;
    const isOpen = selected && typeof selected.appendResults === "function";
    return isOpen && selected.editable !== false && !selected.readonly ? selected : null;
  } catch {
    return null;
  }
}

const tag = (name) => {
  try {
    return annotation()?.names.get(name) ?? null;
  } catch {
    return null;
  }
};

const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};

export const editor = {
  isThere: () => annotation() !== null,
  hasCommands: () => typeof tag(COMMANDS)?.addText === "function",

  chosenLabel() {
    return tag(CLICK)?.selectedLabels?.[0]?._value ?? null;
  },

  // Put a point into the annotation; returns its region. Throws when the editor refuses.
  addPoint({ label, spot, face, xyz, isPositive, sheet }) {
    // A smart point requests a preview of the refine service; it is also the only kind whose
    // sign the editor stores. The sign is in the text too: a reloaded draft loses the other.
    const isSmart = parent.Htx.autoAnnotation === true || !isPositive;
    const point = isPositive ? { face, xyz } : { face, xyz, is_positive: false };
    const [region] = annotation().appendResults([{
      id: "viewer", type: "keypointlabels", from_name: CLICK, to_name: SHEET, origin: "manual",
      original_width: sheet[0], original_height: sheet[1], image_rotation: 0,
      value: { x: spot.x, y: spot.y, width: POINT_WIDTH, keypointlabels: [label] },
      meta: { text: [JSON.stringify(point)] },
      ...(isSmart ? { dynamic: true, negative: !isPositive } : {}),
    }]);
    if (!region) throw new Error("the point was not taken");
    if (isSmart) {
      region.setDrawing?.(false);
      region.notifyDrawingFinished?.();
    }
    return region;
  },

  // Points of the annotation that have a position on the model: [{id, xyz, isPositive, label}].
  points() {
    try {
      return annotation().regions.filter((one) => one.type === "keypointregion").flatMap((one) => {
        const stored = parsed(one.meta?.text?.[0]);
        if (!Array.isArray(stored?.xyz) || !Number.isInteger(stored.face)) return [];
        const isPositive = !one.negative && stored.is_positive !== false;
        const xyz = stored.xyz.map(Number);
        return [{ id: one.id, face: stored.face, xyz, isPositive, label: one.labelName }];
      });
    } catch {
      return [];
    }
  },

  removePoint(id) {
    const found = annotation()?.regions.find((one) => one.id === id);
    found?.deleteRegion();
    return Boolean(found);
  },

  // Command lines in the order given.
  lines() {
    try {
      return tag(COMMANDS).regions.map((one) => one._value);
    } catch {
      return [];
    }
  },

  // Write a command line; returns false when the editor refuses it, e.g. a duplicate.
  addLine(line) {
    const field = tag(COMMANDS);
    const before = field.regions.length;
    field.addText(line);
    return field.regions.length > before;
  },

  removeLine(index, line) {
    const found = tag(COMMANDS)?.regions[index];
    if (found?._value !== line) return false;
    found.deleteRegion();
    return true;
  },

  // Suggestions of the refine service: the pending ones, else those accepted last.
  suggestions() {
    try {
      const waiting = [...annotation().suggestions.values()];
      const accepted = annotation().regions.filter((one) => one.type === "brushregion");
      const those = waiting.length ? waiting : accepted;
      return those.map((one) => ({ id: one.id, meta: one.meta ?? {} }));
    } catch {
      return [];
    }
  },

  // Let keys reach the editor while the mouse is not over this page.
  giveKeysBack() {
    try {
      parent.focus();
    } catch {
      // another origin: keys stay in this page
    }
  },
};
