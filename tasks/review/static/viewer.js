// 3D viewer of one proposal. A click on the model becomes a keypoint of Label Studio's annotation,
// with the exact face and point, if this page runs inside the editor; else it only shows.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const hexToRgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const add = (a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
const scale = (a, s) => [a[0] * s, a[1] * s, a[2] * s];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) =>
  [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => scale(a, 1 / (Math.hypot(...a) || 1));

function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const mesh = {
  points: unpack(data.points, Float32Array), // unit frame
  faces: unpack(data.faces, Uint32Array),
  part: unpack(data.part, Uint16Array),
  original: unpack(data.original, Uint8Array), // one colour per face
};
const numFaces = mesh.part.length;
const numParts = data.parts.length;
const corner = (face, k) => {
  const at = 3 * mesh.faces[3 * face + k];
  return [mesh.points[at], mesh.points[at + 1], mesh.points[at + 2]];
};

const state = {
  hidden: new Set(), label: null, explode: 0, isOriginal: false, isWire: false,
  yaw: 0.64, pitch: 0.42, distance: 1.75, target: [0, 0, 0], isDirty: true,
};

const partCenter = (() => {
  const sums = Array.from({ length: numParts }, () => [0, 0, 0, 0]);
  for (let face = 0; face < numFaces; face++) {
    const sum = sums[mesh.part[face]];
    for (let k = 0; k < 3; k++) {
      const point = corner(face, k);
      for (let axis = 0; axis < 3; axis++) sum[axis] += point[axis];
      sum[3]++;
    }
  }
  return sums.map((sum) => (sum[3] ? scale(sum.slice(0, 3), 1 / sum[3]) : [0, 0, 0]));
})();
const shift = (part) => scale(partCenter[part], state.explode);

// --- drawing

const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
const VERTEX = `attribute vec3 point, normal, color, bary, center; attribute float shown;
uniform mat4 camera; uniform float explode;
varying vec3 vColor, vNormal, vBary;
void main() { vColor = color; vNormal = normal; vBary = bary;
  gl_Position = shown > .5 ? camera * vec4(point + explode * center, 1.) : vec4(2., 2., 2., 1.); }`;
const FRAGMENT = `precision mediump float; varying vec3 vColor, vNormal, vBary;
uniform vec3 eye; uniform float wire;
void main() { vec3 n = normalize(vNormal); float facing = abs(dot(n, eye));
  vec3 lit = vColor * (.45 + .5 * facing + .12 * abs(n.y));
  float edge = min(min(vBary.x, vBary.y), vBary.z);
  gl_FragColor = vec4(mix(lit, vec3(.08, .09, .12), wire * step(edge, .025)), 1.); }`;

const drawing = gl && setUpDrawing();

function setUpDrawing() {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  const fixed = { point: [], normal: [], bary: [], center: [] };
  for (let face = 0; face < numFaces; face++) {
    const [a, b, c] = [0, 1, 2].map((k) => corner(face, k));
    const normal = unit(cross(sub(b, a), sub(c, a)));
    [a, b, c].forEach((point, k) => {
      fixed.point.push(...point);
      fixed.normal.push(...normal);
      fixed.bary.push(+(k === 0), +(k === 1), +(k === 2));
      fixed.center.push(...partCenter[mesh.part[face]]);
    });
  }
  for (const [name, values] of Object.entries(fixed)) upload(program, name, values, 3);
  return { program, at: (name) => gl.getUniformLocation(program, name) };
}

function upload(program, name, values, size) {
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(values), gl.STATIC_DRAW);
  const place = gl.getAttribLocation(program, name);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
}

function paint() {
  if (!drawing) return;
  const color = new Float32Array(9 * numFaces);
  const shown = new Float32Array(3 * numFaces);
  const rgb = data.parts.map((part) => hexToRgb(part.color));
  for (let face = 0; face < numFaces; face++) {
    const part = mesh.part[face];
    for (let k = 0; k < 3; k++) {
      for (let c = 0; c < 3; c++) {
        const value = state.isOriginal ? mesh.original[3 * face + c] : rgb[part][c];
        color[9 * face + 3 * k + c] = value / 255;
      }
      shown[3 * face + k] = state.hidden.has(part) ? 0 : 1;
    }
  }
  upload(drawing.program, "color", color, 3);
  upload(drawing.program, "shown", shown, 1);
  state.isDirty = true;
}

function camera() {
  const { yaw, pitch } = state;
  const out = [Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch), Math.cos(yaw) * Math.cos(pitch)];
  const right = [Math.cos(yaw), 0, -Math.sin(yaw)];
  return { out, right, up: cross(out, right), eye: add(state.target, scale(out, state.distance)) };
}

const FOCAL = 2.2; // 1 / tan(half the field of view)

function draw() {
  requestAnimationFrame(draw);
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, { width, height });
    state.isDirty = true;
  }
  if (!drawing || !state.isDirty) return;
  state.isDirty = false;
  const { out, right, up, eye } = camera();
  const [near, far, aspect] = [0.01, 20, width / Math.max(height, 1)];
  const rows = [scale(right, FOCAL / Math.max(aspect, 1)), scale(up, FOCAL * Math.min(aspect, 1)),
    scale(out, -(far + near) / (near - far) * -1), scale(out, -1)];
  const offset = [0, 0, 2 * far * near / (near - far), 0];
  const matrix = new Float32Array(16);
  rows.forEach((row, r) => {
    for (let c = 0; c < 3; c++) matrix[4 * c + r] = row[c];
    matrix[12 + r] = offset[r] - dot(row, eye);
  });
  gl.viewport(0, 0, width, height);
  gl.clearColor(0.965, 0.969, 0.976, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.uniformMatrix4fv(drawing.at("camera"), false, matrix);
  gl.uniform3fv(drawing.at("eye"), out);
  gl.uniform1f(drawing.at("explode"), state.explode);
  gl.uniform1f(drawing.at("wire"), state.isWire ? 1 : 0);
  gl.drawArrays(gl.TRIANGLES, 0, 3 * numFaces);
}

// --- picking

function nearestHit(origin, direction, offsetOf, isSolid, minimum) {
  let best = null;
  const offsets = data.parts.map((_, part) => offsetOf(part));
  for (let face = 0; face < numFaces; face++) {
    const part = mesh.part[face];
    if (!isSolid(part)) continue;
    const a = add(corner(face, 0), offsets[part]);
    const ab = sub(add(corner(face, 1), offsets[part]), a);
    const ac = sub(add(corner(face, 2), offsets[part]), a);
    const p = cross(direction, ac);
    const det = dot(ab, p);
    if (Math.abs(det) < 1e-14) continue;
    const s = sub(origin, a);
    const u = dot(s, p) / det;
    if (u < 0 || u > 1) continue;
    const q = cross(s, ab);
    const v = dot(direction, q) / det;
    if (v < 0 || u + v > 1) continue;
    const depth = dot(ac, q) / det;
    if (depth > minimum && (!best || depth < best.depth)) {
      const point = sub(add(origin, scale(direction, depth)), offsets[part]);
      best = { face, part, depth, point, normal: unit(cross(ab, ac)) };
    }
  }
  return best;
}

function pick(event) {
  const box = canvas.getBoundingClientRect();
  const aspect = box.width / box.height;
  const x = (event.clientX - box.left) / box.width * 2 - 1;
  const y = 1 - (event.clientY - box.top) / box.height * 2;
  const { out, right, up, eye } = camera();
  const sideways = add(scale(right, x * Math.max(aspect, 1) / FOCAL),
    scale(up, y / (FOCAL * Math.min(aspect, 1))));
  const direction = unit(sub(sideways, out));
  return nearestHit(eye, direction, shift, (part) => !state.hidden.has(part), 0);
}

// Where a point shows on the contact sheet: percent of the tile that sees it best.
function onSheet(hit) {
  let best = null;
  for (const tile of data.tiles) {
    const moved = sub(hit.point, tile.center);
    const column = (dot(moved, tile.right) / tile.half + 1) / 2;
    const row = (1 - dot(moved, tile.up) / tile.half) / 2;
    if (column <= 0 || column >= 1 || row <= 0 || row >= 1) continue;
    const back = scale(tile.forward, -1);
    const covered = nearestHit(hit.point, back, () => [0, 0, 0], () => true, 1e-4);
    const merit = Math.abs(dot(hit.normal, tile.forward)) + (covered ? 0 : 2);
    if (best && merit <= best.merit) continue;
    best = { merit, x: (tile.left + column * tile.size) / data.sheet[0] * 100,
      y: (tile.top + row * tile.size) / data.sheet[1] * 100 };
  }
  return best || { x: 50, y: 50 };
}

// --- the editor around this page: private interface, so every step is allowed to fail

function annotation() {
  try {
    const selected = parent.Htx.annotationStore.selected;
    return selected && typeof selected.appendResults === "function" ? selected : null;
  } catch {
    return null; // another origin, or no editor
  }
}

function chosenLabel(editor) {
  if (state.label) return state.label;
  try {
    return editor.names.get("click").selectedLabels[0]._value;
  } catch {
    return null;
  }
}

function say(text, isWarning = false) {
  byId("state").textContent = text;
  byId("state").className = isWarning ? "warning" : "";
}

function placePoint(hit) {
  const name = `face ${hit.face}, ${data.parts[hit.part].name}`;
  const editor = annotation();
  if (!editor) return say(`${name}. View only: click on the sheet to correct.`, true);
  const label = chosenLabel(editor);
  if (!label) return say(`${name}. First choose a label: press its key or pick it here.`, true);
  const xyz = add(scale(hit.point, 1 / data.scale), data.center);
  const spot = onSheet(hit);
  try {
    editor.appendResults([{
      id: `v3d${Math.random().toString(36).slice(2, 9)}`, type: "keypointlabels",
      from_name: "click", to_name: "sheet", origin: "manual",
      original_width: data.sheet[0], original_height: data.sheet[1], image_rotation: 0,
      value: { x: spot.x, y: spot.y, width: 0.9, keypointlabels: [label] },
      meta: { text: [JSON.stringify({ face: hit.face, xyz })] },
    }]);
    say(`${name} -> "${label}"`);
  } catch (error) {
    say(`The editor refused the point (${error.name}); click on the sheet instead.`, true);
  }
}

// --- controls

function addRow(name, color, key, share, part) {
  const row = document.createElement("li");
  const add = (tag, text, className) => {
    const node = document.createElement(tag);
    node.textContent = text;
    node.className = className;
    row.append(node);
    return node;
  };
  add("span", "", "swatch").style.background = color;
  add("span", name, "name");
  if (key) add("kbd", key, "");
  row.title = share === null ? name : `${name}: ${(share * 100).toFixed(1)} % of the surface`;
  row.dataset.name = name;
  row.onclick = () => choose(state.label === name ? null : name);
  if (part !== null) {
    row.dataset.part = part;
    const hide = add("button", "\u25c9", "");
    hide.title = "hide or show; double click on the row: this part alone";
    hide.onclick = (event) => { event.stopPropagation(); toggle([part]); };
    row.ondblclick = () => isolate(part);
  }
  byId("parts").append(row);
}

function choose(name) {
  state.label = name;
  for (const row of byId("parts").children) {
    row.classList.toggle("chosen", row.dataset.name === name);
  }
  say(name ? `Clicks on the model now say "${name}".` : "Clicks use the label chosen above.");
}

function toggle(parts) {
  for (const part of parts) {
    state.hidden.has(part) ? state.hidden.delete(part) : state.hidden.add(part);
  }
  refresh();
}

function isolate(part) {
  const others = data.parts.map((_, other) => other).filter((other) => other !== part);
  const isAlone = state.hidden.size === others.length && !state.hidden.has(part);
  state.hidden = new Set(isAlone ? [] : others);
  refresh();
}

function refresh() {
  for (const row of byId("parts").children) {
    row.classList.toggle("hidden", state.hidden.has(Number(row.dataset.part)));
  }
  paint();
}

function press(id, field) {
  state[field] = !state[field];
  byId(id).setAttribute("aria-pressed", state[field]);
  paint();
}

function listen() {
  let down = null;
  canvas.onpointerdown = (event) => {
    down = { x: event.clientX, y: event.clientY, moved: 0 };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!down) return;
    const [dx, dy] = [event.clientX - down.x, event.clientY - down.y];
    down = { x: event.clientX, y: event.clientY, moved: down.moved + Math.hypot(dx, dy) };
    if (down.moved < 4) return;
    if (event.shiftKey || event.buttons === 2) {
      const { right, up } = camera();
      const step = state.distance / canvas.clientHeight;
      state.target = add(state.target, add(scale(right, -dx * step), scale(up, dy * step)));
    } else {
      state.yaw -= dx * 0.01;
      state.pitch = Math.max(-1.55, Math.min(1.55, state.pitch + dy * 0.01));
    }
    state.isDirty = true;
  };
  canvas.onpointerup = (event) => {
    const isClick = down && down.moved < 4 && event.button === 0;
    down = null;
    const hit = isClick ? pick(event) : null;
    if (hit) placePoint(hit);
  };
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    state.distance = Math.max(0.2, Math.min(8, state.distance * Math.exp(event.deltaY * 0.001)));
    state.isDirty = true;
  }, { passive: false });
  byId("explode").oninput = (event) => {
    state.explode = Number(event.target.value);
    state.isDirty = true;
  };
  byId("original").onclick = () => press("original", "isOriginal");
  byId("wire").onclick = () => press("wire", "isWire");
  byId("all").onclick = () => { state.hidden.clear(); refresh(); };
  byId("question").onclick = () => { byId("help").hidden = !byId("help").hidden; };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const label = data.labels.find((one) => one.hotkey && one.hotkey === event.key);
    if (label) choose(label.value);
    else if (event.key === "Escape") choose(null);
    else if (event.key === "?") byId("question").click();
  });
}

byId("title").textContent = annotation() ? "" : data.title; // the editor shows it itself
for (const label of data.labels) {
  const part = data.parts.findIndex((one) => one.name === label.value);
  addRow(label.value, label.background, label.hotkey, part < 0 ? null : data.parts[part].share,
    part < 0 ? null : part);
}
listen();
paint();
draw();
if (!drawing) say("This browser has no WebGL; the sheet works without it.", true);
else if (annotation()) say("Click on the model: the point goes into your annotation.");
else say("View only: the editor cannot be reached from here. The sheet works.", true);
