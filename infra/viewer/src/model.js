// The model as three.js draws it: one group per part, so that each part can be moved, hidden and
// coloured. Geometry is shared; a part holds indices into it.

import {
  BufferAttribute, BufferGeometry, Color, DirectionalLight, DoubleSide, Group, HemisphereLight,
  Mesh, MeshBasicMaterial, MeshLambertMaterial, PerspectiveCamera, RepeatWrapping, Scene,
  SphereGeometry, SRGBColorSpace, Texture, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

import { faceNormal, nearestHit } from "./pick.js";

const GROUND = 0xf6f7f9;
const INK = 0x14171f;
const SMOOTH_COSINE = 0.85; // a vertex normal farther off its face's would round off an edge
const FIELD_OF_VIEW = 38; // degrees
const HOME = new Vector3(0.55, 0.42, 0.73).normalize();
const MARKER_SIZE = 0.011; // of the distance to the camera
const FADE = 0.62; // of the way to white, for what a preview does not change

// Throws when the browser has no WebGL.
export class Model {
  constructor(page, canvas) {
    this.page = page;
    this.canvas = canvas;
    this.numParts = page.parts.length;
    this.hidden = new Uint8Array(this.numParts);
    this.explode = 0;
    this.isOriginal = false;
    this.isWire = false;
    this.chosen = new Set();
    this.preview = null;
    this.into = page.parts.map((_, part) => part);
    this.colors = page.parts.map((part) => new Color(part.color));
    this.renderer = new WebGLRenderer({ canvas, antialias: true });
    this.renderer.setClearColor(GROUND);
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.005, 40);
    this.scene.add(this.camera, new HemisphereLight(0xffffff, 0xb9bdc9, 2.1));
    const lamp = new DirectionalLight(0xffffff, 1.35);
    lamp.position.set(0.4, 0.7, 1);
    this.camera.add(lamp);
    this.middles = partMiddles(page);
    this.build();
    this.controls = new OrbitControls(this.camera, canvas);
    Object.assign(this.controls, { zoomToCursor: true, minDistance: 0.05, maxDistance: 12 });
    this.controls.addEventListener("change", () => this.touch());
    this.resetView();
    this.loadPictures();
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  build() {
    const shared = sharedAttributes(this.page);
    this.originals = [null, ...this.page.pictures].map(
      () => new MeshLambertMaterial({ vertexColors: true, side: DoubleSide, ...BEHIND }),
    );
    this.wire = new MeshBasicMaterial({ color: INK, wireframe: true });
    this.wire.transparent = true;
    this.wire.opacity = 0.35;
    this.shared = shared;
    this.groups = this.middles.map(() => new Group());
    this.paints = this.colors.map(
      (color) => new MeshLambertMaterial({ color, side: DoubleSide, ...BEHIND }),
    );
    for (const { part, slot, index } of buckets(this.page)) {
      const geometry = withIndex(shared, index);
      const surface = new Mesh(geometry, this.paints[part]);
      surface.userData = { part, slot };
      const lines = new Mesh(geometry, this.wire);
      lines.visible = false;
      lines.userData = { isWire: true };
      surface.frustumCulled = lines.frustumCulled = false; // they share one cloud of points
      this.groups[part].add(surface, lines);
    }
    this.scene.add(...this.groups);
    this.markers = new Map();
    this.ball = new SphereGeometry(1, 16, 12);
    this.overlays = [];
  }

  async loadPictures() {
    await Promise.all(this.page.pictures.map(async (bytes, at) => {
      const image = await createImageBitmap(new Blob([bytes]), { imageOrientation: "none" });
      const texture = new Texture(image);
      Object.assign(texture, { flipY: false, wrapS: RepeatWrapping, wrapT: RepeatWrapping });
      texture.colorSpace = SRGBColorSpace;
      texture.anisotropy = 4;
      texture.needsUpdate = true;
      Object.assign(this.originals[at + 1], { map: texture, needsUpdate: true });
    }));
    this.touch();
  }

  resetView() {
    const { points } = this.page;
    let radius = 0;
    for (let at = 0; at < points.length; at += 3) {
      radius = Math.max(radius, Math.hypot(points[at], points[at + 1], points[at + 2]));
    }
    const distance = (radius || 0.5) / Math.sin((FIELD_OF_VIEW / 2) * (Math.PI / 180));
    this.controls.target.set(0, 0, 0);
    this.camera.position.copy(HOME).multiplyScalar(distance);
    this.controls.update();
    this.touch();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.touch();
  }

  // Draw once, soon.
  touch() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      for (const marker of this.markers.values()) {
        const far = this.camera.position.distanceTo(marker.getWorldPosition(new Vector3()));
        marker.scale.setScalar(far * MARKER_SIZE);
      }
      this.renderer.render(this.scene, this.camera);
    });
  }

  offsets() {
    return Float32Array.from(this.middles.flat(), (value) => value * this.explode);
  }

  // Update the screen from the fields above.
  refresh() {
    const isFaded = this.preview !== null;
    this.groups.forEach((group, part) => {
      group.visible = !this.hidden[part];
      group.position.fromArray(this.middles[part]).multiplyScalar(this.explode);
      const paint = this.paints[part];
      paint.color.copy(this.colors[this.into[part]]);
      if (isFaded) paint.color.lerp(WHITE, FADE);
      paint.emissive.setScalar(this.chosen.has(part) ? 0.16 : 0);
      for (const child of group.children) {
        if (child.userData.isWire) child.visible = this.isWire;
        else if (child.userData.slot !== undefined) {
          child.material = this.isOriginal ? this.originals[child.userData.slot] : paint;
        }
      }
    });
    this.touch();
  }

  // Show what the refine service suggests: {groups: [{color, faces}]} or null. The rest fades.
  showPreview(preview) {
    for (const overlay of this.overlays.splice(0)) {
      overlay.removeFromParent();
      overlay.geometry.dispose();
      overlay.material.dispose();
    }
    this.preview = preview;
    for (const { color, faces } of preview?.groups ?? []) {
      for (const [part, some] of grouped(faces, (face) => this.page.part[face])) {
        const glow = { color, side: DoubleSide, emissive: color, emissiveIntensity: 0.25 };
        const material = new MeshLambertMaterial(glow);
        const overlay = new Mesh(withIndex(this.shared, cornersOf(some)), material);
        overlay.frustumCulled = false;
        this.groups[part].add(overlay);
        this.overlays.push(overlay);
      }
    }
    this.refresh();
  }

  // points: [{id, face, place: unit frame, isPositive, color}]
  showMarkers(points) {
    const wanted = new Set(points.map((point) => point.id));
    for (const [id, marker] of this.markers) {
      if (wanted.has(id)) continue;
      marker.removeFromParent();
      this.markers.delete(id);
    }
    for (const point of points) {
      if (this.markers.has(point.id)) continue;
      const marker = new Mesh(this.ball, new MeshBasicMaterial({ color: point.color }));
      const inner = new Mesh(
        this.ball, new MeshBasicMaterial({ color: point.isPositive ? 0xffffff : INK }),
      );
      inner.scale.setScalar(0.55);
      inner.renderOrder = 2;
      inner.material.depthTest = false;
      marker.add(inner);
      marker.position.fromArray(point.place);
      this.groups[this.page.part[point.face] ?? 0].add(marker);
      this.markers.set(point.id, marker);
    }
    this.touch();
  }

  // Position and direction of the camera: plain numbers, unit frame.
  pose() {
    this.camera.updateMatrixWorld();
    const { elements } = this.camera.matrixWorld;
    return {
      eye: this.camera.position.toArray(), right: elements.slice(0, 3), up: elements.slice(4, 7),
      back: elements.slice(8, 11), slope: Math.tan((FIELD_OF_VIEW / 2) * (Math.PI / 180)),
    };
  }

  // The surface under a mouse event, or null. Hidden parts are left out.
  pick(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 2 - 1;
    const y = 1 - ((event.clientY - box.top) / box.height) * 2;
    this.camera.updateMatrixWorld();
    const eye = this.camera.position;
    const direction = new Vector3(x, y, 0.5).unproject(this.camera).sub(eye).normalize();
    const solid = this.hidden.map((isHidden) => 1 - isHidden);
    const ray = { origin: eye.toArray(), direction: direction.toArray() };
    return nearestHit(this.page, ray, this.offsets(), solid);
  }
}

const WHITE = new Color(0xffffff);
// Lines and previews lie on the surface and are drawn over it.
const BEHIND = { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 };

function grouped(values, keyOf) {
  const groups = new Map();
  for (const value of values) {
    const key = keyOf(value);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(value);
  }
  return groups;
}

function partMiddles({ parts, points, faces, part }) {
  const sums = parts.map(() => [0, 0, 0, 0]);
  for (let face = 0; face < part.length; face++) {
    const sum = sums[part[face]];
    for (let k = 0; k < 3; k++) {
      const at = 3 * faces[3 * face + k];
      for (let axis = 0; axis < 3; axis++) sum[axis] += points[at + axis];
      sum[3]++;
    }
  }
  return sums.map(([x, y, z, count]) => (count ? [x / count, y / count, z / count] : [0, 0, 0]));
}

function buckets({ part, slot, parts }) {
  const found = new Map();
  for (let face = 0; face < part.length; face++) {
    const key = part[face] + parts.length * (slot ? slot[face] : 0);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(face);
  }
  return [...found].map(([key, faces]) => ({
    part: key % parts.length, slot: Math.floor(key / parts.length), index: cornersOf(faces),
  }));
}

const cornersOf = (faces) =>
  Uint32Array.from({ length: 3 * faces.length }, (_, at) => 3 * faces[Math.floor(at / 3)] + (at % 3));

function withIndex(shared, index) {
  const geometry = new BufferGeometry();
  for (const [name, attribute] of Object.entries(shared)) geometry.setAttribute(name, attribute);
  geometry.setIndex(new BufferAttribute(index, 1));
  return geometry;
}

// Every face has corners of its own, so that face k is corners 3k..3k+2 everywhere.
function sharedAttributes(page) {
  const { points, faces, original, uv } = page;
  const position = new Float32Array(3 * faces.length);
  const color = new Float32Array(3 * faces.length);
  const tint = new Color();
  for (let corner = 0; corner < faces.length; corner++) {
    const face = Math.floor(corner / 3);
    if (corner % 3 === 0) {
      const [r, g, b] = original.subarray(3 * face, 3 * face + 3);
      tint.setRGB(r / 255, g / 255, b / 255, SRGBColorSpace);
    }
    position.set(points.subarray(3 * faces[corner], 3 * faces[corner] + 3), 3 * corner);
    tint.toArray(color, 3 * corner);
  }
  const shared = {
    position: new BufferAttribute(position, 3),
    normal: new BufferAttribute(cornerNormals(page), 3),
    color: new BufferAttribute(color, 3),
  };
  return uv ? { ...shared, uv: new BufferAttribute(uv, 2) } : shared;
}

function cornerNormals(page) {
  const { faces, points } = page;
  const numFaces = faces.length / 3;
  const flat = new Float32Array(3 * numFaces);
  const round = new Float32Array(points.length);
  for (let face = 0; face < numFaces; face++) {
    const normal = faceNormal(page, face);
    flat.set(normal, 3 * face);
    for (let k = 0; k < 3; k++) {
      for (let axis = 0; axis < 3; axis++) round[3 * faces[3 * face + k] + axis] += normal[axis];
    }
  }
  const normals = new Float32Array(3 * faces.length);
  for (let corner = 0; corner < faces.length; corner++) {
    const mine = flat.subarray(3 * Math.floor(corner / 3), 3 * Math.floor(corner / 3) + 3);
    const soft = round.subarray(3 * faces[corner], 3 * faces[corner] + 3);
    const length = Math.hypot(...soft) || 1;
    const cosine = (mine[0] * soft[0] + mine[1] * soft[1] + mine[2] * soft[2]) / length;
    normals.set(cosine > SMOOTH_COSINE ? soft.map((value) => value / length) : mine, 3 * corner);
  }
  return normals;
}
