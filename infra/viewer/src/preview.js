// Suggestions of the refine service, as faces of the model; the format is defined in
// tasks/live/preview.py. A suggestion that cannot be read is ignored.

const VERSION = 1;
const NEW_PART = "#2e00ff";

// suggestions: the editor's, newest last. Gives {groups: [{part, color, faces}], text} or null.
export function previewOf(page, suggestions) {
  const preview = suggestions.map((one) => one.meta?.preview).filter((one) => fits(page, one)).pop();
  if (!preview) return null;
  const groups = Object.entries(preview.parts).map(([name, runs]) => {
    const part = Number(name);
    return { part, color: page.parts[part]?.color ?? NEW_PART, faces: facesOf(runs, preview.num_faces) };
  });
  const all = groups.reduce((sum, group) => sum + group.faces.length, 0);
  const isAway = preview.is_positive === false;
  const own = groups.find((group) => group.part === preview.part)?.faces.length ?? 0;
  const count = isAway ? all : own; // what leaves a part may go to several
  const label = preview.label || page.parts[preview.part]?.label || "a new part";
  const rest = all > count ? `, ${all - count} more change by your other edits` : "";
  return { groups, text: `Suggested: ${count} faces ${isAway ? "leave" : "come to"} "${String(label)}"${rest}.` };
}

function fits(page, preview) {
  return preview?.version === VERSION && preview.num_faces === page.part.length
    && typeof preview.parts === "object" && preview.parts !== null
    && Object.values(preview.parts).every((runs) => Array.isArray(runs));
}

// Runs [gap, length, gap, length, ...] to face indices; what lies outside the mesh is left out.
export function facesOf(runs, numFaces) {
  const faces = [];
  let at = 0;
  for (let run = 0; run + 1 < runs.length; run += 2) {
    at += Math.max(0, Math.floor(runs[run]) || 0);
    const end = Math.min(at + Math.max(0, Math.floor(runs[run + 1]) || 0), numFaces);
    for (; at < end; at++) faces.push(at);
  }
  return faces;
}
