// Command lines of the editor's `verbs` field. The pipeline parses them when it pulls. This page
// writes them, and reads merges and names back only to show their effect.

export const mergeLine = (parts) => `merge ${parts.join(" ")}`;
export const splitLine = (part, count) => `split ${part}${count ? ` into ${count}` : ""}`;
export const nameLine = (part, words) => `name ${part} ${words.trim().replace(/\s+/g, " ")}`;
export const categoryLine = (part, id) => `category ${part} ${id}`;

const MERGE = /^\s*merge\b(?:[\s\d,;:+=&#.]|\bparts?(?![a-z])|\band(?![a-z]))+$/i;
const NAMED = /^\s*(name|category)[\s:]+(?:part[\s#]*)?(\d+)[\s,:;=]+(\S.*)$/i;

const splitLines = (lines) => lines.flatMap((entry) => entry.split(/\r?\n/));

// part -> part that it is shown as, after all merges so far
export function mergedInto(lines, numParts) {
  const into = Array.from({ length: numParts }, (_, part) => part);
  for (const line of splitLines(lines)) {
    const parts = MERGE.test(line) ? (line.match(/\d+/g) ?? []).map(Number) : [];
    if (parts.length < 2 || parts.some((part) => part >= numParts)) continue;
    const target = into[parts[0]];
    const gone = new Set(parts.map((part) => into[part]));
    into.forEach((shown, part) => {
      if (gone.has(shown)) into[part] = target;
    });
  }
  return into;
}

// part -> its name and category by the lines: {name, category}
export function namesOf(lines, numParts) {
  const names = Array.from({ length: numParts }, () => ({}));
  for (const line of splitLines(lines)) {
    const found = NAMED.exec(line);
    const part = found ? Number(found[2]) : numParts;
    if (part < numParts) names[part][found[1].toLowerCase()] = found[3].trim();
  }
  return names;
}
