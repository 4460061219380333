// Where a point of the model is visible on the contact sheet.

import { nearestHit } from "./pick.js";

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const CLEAR = 1e-4; // unit lengths; a surface nearer than this is the clicked one itself

// Percent of the sheet's width and height, in the tile that sees the point best: not covered there
// and facing the camera. Null when no tile's frame holds it.
export function onSheet(page, hit) {
  const still = new Float32Array(3 * page.parts.length);
  const solid = new Uint8Array(page.parts.length).fill(1);
  let best = null;
  for (const tile of page.tiles) {
    const moved = hit.point.map((value, axis) => value - tile.center[axis]);
    const column = (dot(moved, tile.right) / tile.half + 1) / 2;
    const row = (1 - dot(moved, tile.up) / tile.half) / 2;
    if (column <= 0 || column >= 1 || row <= 0 || row >= 1) continue;
    const ray = { origin: hit.point, direction: tile.forward.map((value) => -value) };
    const isCovered = nearestHit(page, ray, still, solid, CLEAR) !== null;
    const merit = Math.abs(dot(hit.normal, tile.forward)) + (isCovered ? 0 : 2);
    if (best && merit <= best.merit) continue;
    best = {
      merit,
      x: ((tile.left + column * tile.size) / page.sheet[0]) * 100,
      y: ((tile.top + row * tile.size) / page.sheet[1]) * 100,
    };
  }
  return best;
}
