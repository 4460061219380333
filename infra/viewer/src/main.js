// 3D viewer of one proposal. A click on the model becomes a keypoint of Label Studio's annotation,
// an edit command a line of its `verbs` field, if this page runs inside the editor. Elsewhere the
// page only shows the model.

import { readPage, toMesh, toUnit } from "./data.js";
import { editor } from "./editor.js";
import { Model } from "./model.js";
import { buildRows, byId, fillTaxonomy, partTitle, say, showLines, showRows } from "./panel.js";
import { previewOf } from "./preview.js";
import { onSheet } from "./sheet.js";
import { categoryLine, mergedInto, mergeLine, nameLine, namesOf, splitLine } from "./commands.js";

const SYNC_MS = 300; // between two readings of the editor's state; it sends no events
const STILL = 4; // pixels; a mouse that moved farther has turned the model
const VIEW_ONLY = "View only: the editor cannot be reached from here. The sheet works.";
const NO_COMMANDS = "The editor has no field for commands; write what you mean into the note.";

const page = readPage();
const view = {
  label: null, chosen: new Set(), hidden: null, into: page.parts.map((_, part) => part),
  names: page.parts.map(() => ({})),
};
const done = []; // what this page added to the annotation, for undo
let model = null;
let seen = "";
let isReached = null; // the editor may appear later than this page, and vanish earlier

function choose(label) {
  view.label = view.label === label ? null : label;
  showRows(page, view);
  say(view.label ? `Clicks on the model now mean "${view.label}".`
    : "Clicks use the label chosen in the editor.");
}

function tick(part) {
  view.chosen.has(part) ? view.chosen.delete(part) : view.chosen.add(part);
  show();
  const names = [...view.chosen].map((one) => page.parts[one].label);
  say(names.length ? `For merge, split and name: ${names.join(", ")}.` : "No part is chosen.");
}

function show() {
  showRows(page, view);
  if (!model) return;
  Object.assign(model, { chosen: view.chosen, into: view.into });
  model.refresh();
}

function hide(part) {
  view.hidden[part] = 1 - view.hidden[part];
  show();
}

function isolate(part) {
  const isAlone = view.hidden.every((isHidden, other) => isHidden === Number(other !== part));
  view.hidden.forEach((_, other) => { view.hidden[other] = Number(!isAlone && other !== part); });
  show();
}

function showAll() {
  view.hidden.fill(0);
  show();
}

// --- clicks

function placePoint(hit, isPositive) {
  const name = `face ${hit.face}, ${page.parts[hit.part].label}`;
  if (!editor.isThere()) return say(`${name}. View only: click on the sheet to correct.`, true);
  const label = view.label ?? editor.chosenLabel();
  if (!label) return say(`${name}. First choose a label: press its key or pick it here.`, true);
  if (!isPositive && !page.parts.some((part) => part.label === label)) {
    return say(`Alt-click means "does not belong to": choose a part, not "${label}".`, true);
  }
  const spot = onSheet(page, hit) ?? { x: 50, y: 50 };
  const point = { label, spot, face: hit.face, xyz: toMesh(page, hit.point), isPositive };
  try {
    const region = editor.addPoint({ ...point, sheet: page.sheet });
    done.push({ id: region.id });
    say(`${name} -> ${isPositive ? "" : "not "}"${label}"`);
  } catch (error) {
    return say(`The editor refused the point (${error.name}); click on the sheet instead.`, true);
  }
  return sync();
}

function listenToMouse(canvas) {
  let down = null;
  canvas.addEventListener("pointerdown", (event) => {
    down = { x: event.clientX, y: event.clientY };
  });
  canvas.addEventListener("pointerup", (event) => {
    const moved = down ? Math.hypot(event.clientX - down.x, event.clientY - down.y) : STILL;
    down = null;
    if (event.button !== 0 || moved >= STILL) return;
    const hit = model.pick(event);
    if (!hit) return;
    const isChoice = event.ctrlKey || event.metaKey || event.shiftKey;
    isChoice ? tick(hit.part) : placePoint(hit, !event.altKey);
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  // Keys go where the mouse is, so that the key of a verdict works beside this page.
  document.documentElement.addEventListener("pointerenter", () => focus());
  document.documentElement.addEventListener("pointerleave", () => {
    if (!isTyping(document.activeElement)) editor.giveKeysBack();
  });
}

// --- edit commands

function addCommand(line) {
  if (!editor.isThere()) return say(VIEW_ONLY, true);
  if (!editor.hasCommands()) return say(NO_COMMANDS, true);
  if (!editor.addLine(line)) return say(`The editor did not take "${line}".`, true);
  done.push({ line });
  view.chosen.clear();
  say(`Added: ${line}`);
  return sync();
}

function chosenParts(least, what) {
  const parts = [...view.chosen];
  if (parts.length >= least) return parts;
  const how = "Ctrl-click it on the model or tick it in the list";
  say(`${what} needs ${least === 1 ? "a part" : "two parts"}: ${how}.`, true);
  return null;
}

function merge() {
  const parts = chosenParts(2, "Merge");
  if (parts) addCommand(mergeLine(parts));
}

function split() {
  const parts = chosenParts(1, "Split");
  const count = Math.round(Number(byId("pieces").value));
  for (const part of parts ?? []) addCommand(splitLine(part, count > 1 ? count : 0));
}

function name() {
  const parts = chosenParts(1, "Name");
  const words = byId("words").value;
  if (!parts) return;
  if (!words.trim()) {
    say("Write the name first, then press Enter.");
    byId("words").focus();
    return;
  }
  for (const part of parts) addCommand(nameLine(part, words));
  byId("words").value = "";
}

function categorise() {
  const id = byId("category").value;
  byId("category").value = "";
  const parts = id ? chosenParts(1, "Category") : null;
  for (const part of parts ?? []) addCommand(categoryLine(part, id));
}

function takeBack(index, line) {
  const isGone = editor.removeLine(index, line);
  say(isGone ? `Taken back: ${line}` : `"${line}" is no longer there.`, !isGone);
  sync();
}

function undo() {
  while (done.length) {
    const last = done.pop();
    const at = last.line ? editor.lines().lastIndexOf(last.line) : -1;
    const isGone = last.line ? editor.removeLine(at, last.line) : editor.removePoint(last.id);
    if (!isGone) continue; // deleted in the editor meanwhile
    say(last.line ? `Undone: ${last.line}` : "Undone: the last point.");
    return sync();
  }
  return say("Nothing of this page is left to undo; Ctrl+Z beside it undoes the rest.");
}

// --- the editor's state

function greet() {
  isReached = editor.isThere();
  byId("title").textContent = isReached ? "" : page.title; // the editor shows it itself
  if (isReached) say("Click on the model: the point goes into your annotation.");
  else say(VIEW_ONLY, true);
}

function sync() {
  if (editor.isThere() !== isReached) greet();
  if (!isReached) return;
  const lines = editor.lines();
  const points = editor.points();
  const suggestions = editor.suggestions();
  const now = JSON.stringify([lines, points, suggestions.map((one) => one.id)]);
  if (now === seen) return;
  seen = now;
  view.into = mergedInto(lines, page.parts.length);
  view.names = namesOf(lines, page.parts.length);
  showLines(lines, takeBack);
  const colors = new Map(page.labels.map((label) => [label.value, label.background]));
  model?.showMarkers(points.filter((point) => point.face < page.part.length).map((point) => ({
    ...point, place: toUnit(page, point.xyz), color: colors.get(point.label) ?? "#464646",
  })));
  showSuggestion(previewOf(page, suggestions));
  show();
}

function showSuggestion(preview) {
  model?.showPreview(preview);
  if (preview) say(preview.text);
}

// --- keys and buttons

function press(id, field) {
  model[field] = !model[field];
  byId(id).setAttribute("aria-pressed", model[field]);
  model.refresh();
}

function setExplode(value) {
  byId("explode").value = value;
  model.explode = Number(value);
  model.refresh();
}

const help = () => { byId("help").hidden = !byId("help").hidden; };
const onChosen = (act) => [...view.chosen].forEach(act);
const forget = () => {
  view.label = null;
  view.chosen.clear();
  byId("help").hidden = true;
  show();
  say("Clicks use the label chosen in the editor.");
};
const KEYS = {
  M: merge, S: split, N: name, U: undo, H: () => onChosen(hide), A: showAll, Escape: forget,
  I: () => onChosen(isolate), O: () => press("original", "isOriginal"), "?": help,
  W: () => press("wire", "isWire"), E: () => setExplode(model.explode ? 0 : 0.8),
  V: () => model.resetView(), C: () => byId("category").focus(),
};
const isTyping = (node) => ["text", "number"].includes(node?.type) || node?.tagName === "SELECT";

function onKey(event) {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") return undo();
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (isTyping(event.target)) return event.key === "Escape" ? event.target.blur() : undefined;
  const label = page.labels.find((one) => one.hotkey && one.hotkey === event.key);
  const act = KEYS[event.key];
  if (!label && !act) return undefined;
  event.preventDefault(); // else the key would also be typed into the field that it leads to
  return label ? choose(label.value) : act();
}

function listen() {
  const acts = {
    merge, split, name, undo, all: showAll, question: help, reset: () => model.resetView(),
    original: KEYS.O, wire: KEYS.W,
  };
  for (const [id, act] of Object.entries(acts)) byId(id).onclick = act;
  byId("explode").oninput = (event) => setExplode(event.target.value);
  byId("category").onchange = categorise;
  byId("words").onkeydown = (event) => { if (event.key === "Enter") name(); };
  addEventListener("keydown", onKey);
}

function start() {
  view.hidden = new Uint8Array(page.parts.length);
  buildRows(page, { choose, tick, hide, isolate });
  fillTaxonomy(page.taxonomy);
  try {
    model = new Model(page, byId("canvas"));
  } catch {
    showRows(page, view);
    say("This browser has no WebGL; the sheet works without it.", true);
    return;
  }
  view.hidden = model.hidden;
  listen();
  listenToMouse(byId("canvas"));
  sync();
  show();
  setInterval(sync, SYNC_MS);
  // For the console and for tests: what is shown now.
  globalThis.viewer = Object.freeze({ camera: () => model.pose(), title: (k) => partTitle(page, view, k) });
}

start();
