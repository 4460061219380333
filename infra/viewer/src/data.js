// The data of the page: geometry in the original face order, parts, labels, cameras of the sheet.

function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Kind(bytes.buffer);
}

// One object for the whole program; it is never changed.
export function readPage() {
  const stored = JSON.parse(document.getElementById("data").textContent);
  return {
    ...stored,
    points: unpack(stored.points, Float32Array), // unit frame
    faces: unpack(stored.faces, Uint32Array),
    part: unpack(stored.part, Uint16Array),
    original: unpack(stored.original, Uint8Array), // one colour per face
    slot: stored.slot ? unpack(stored.slot, Uint16Array) : null, // picture of each face, 0 = none
    uv: stored.uv ? unpack(stored.uv, Float32Array) : null,
    pictures: stored.pictures.map((text) => unpack(text, Uint8Array)),
  };
}

// Unit frame to mesh frame.
export const toMesh = (page, point) =>
  point.map((value, axis) => value / page.scale + page.center[axis]);

export const toUnit = (page, xyz) =>
  xyz.map((value, axis) => (value - page.center[axis]) * page.scale);
