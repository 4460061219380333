// Rows, buttons and messages beside the model. Text of the asset is inserted as text, never markup.

export const byId = (id) => document.getElementById(id);

function element(tag, { text = "", className = "", ...fields } = {}) {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return Object.assign(node, fields);
}

export function say(text, isWarning = false) {
  byId("state").textContent = text;
  byId("state").className = isWarning ? "warning" : "";
}

// One row per label. `acts`: choose(label), tick(part), hide(part), isolate(part).
export function buildRows(page, acts) {
  const rows = page.labels.map((label) => {
    const part = page.parts.findIndex((one) => one.label === label.value);
    const row = element("li");
    row.dataset.name = label.value;
    if (part >= 0) row.append(tickBox(part, acts));
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = label.background;
    row.append(swatch, element("span", { className: "name", text: label.value }));
    if (label.hotkey) row.append(element("kbd", { text: label.hotkey }));
    if (part >= 0) finishPartRow(row, page.parts[part], part, acts);
    row.onclick = (event) => {
      const isTick = part >= 0 && (event.ctrlKey || event.metaKey || event.shiftKey);
      isTick ? acts.tick(part) : acts.choose(label.value);
    };
    return row;
  });
  byId("parts").replaceChildren(...rows);
}

function tickBox(part, acts) {
  const box = element("input", { type: "checkbox", title: "choose for merge, split and name" });
  box.onclick = (event) => {
    event.stopPropagation();
    acts.tick(part);
  };
  return box;
}

function finishPartRow(row, stored, part, acts) {
  row.dataset.part = part;
  const share = `${(stored.share * 100).toFixed(stored.share < 0.01 ? 2 : 1)} %`;
  row.append(element("span", { className: "share", text: share }));
  const hide = element("button", { text: "\u25c9", title: "hide or show" });
  hide.onclick = (event) => {
    event.stopPropagation();
    acts.hide(part);
  };
  const alone = element("button", { text: "\u25ce", title: "this part alone" });
  alone.onclick = (event) => {
    event.stopPropagation();
    acts.isolate(part);
  };
  row.append(hide, alone);
}

// Update the rows: {label, chosen: Set, hidden, into, names}.
export function showRows(page, view) {
  for (const row of byId("parts").children) {
    const part = row.dataset.part === undefined ? -1 : Number(row.dataset.part);
    row.classList.toggle("chosen", row.dataset.name === view.label);
    if (part < 0) continue;
    row.classList.toggle("hidden", Boolean(view.hidden[part]));
    row.querySelector("input").checked = view.chosen.has(part);
    row.querySelector(".swatch").style.background = page.parts[view.into[part]].color;
    row.querySelector(".name").textContent = partTitle(page, view, part);
  }
}

export function partTitle(page, view, part) {
  const stored = page.parts[part];
  const name = view.names[part].name ?? stored.name;
  const category = view.names[part].category ?? stored.category;
  const merged = view.into[part] === part ? "" : ` \u2192 ${view.into[part]}`;
  return [stored.label + merged, name, category && `(${category})`].filter(Boolean).join(" ");
}

// The command lines, each with a button that removes it.
export function showLines(lines, remove) {
  byId("commands").replaceChildren(...lines.map((line, index) => {
    const row = element("li", { text: line });
    const cross = element("button", { text: "\u00d7", title: `take back: ${line}` });
    cross.onclick = () => remove(index, line);
    row.append(cross);
    return row;
  }));
}

export function fillTaxonomy(entries) {
  const list = byId("category");
  list.hidden = entries.length === 0;
  const nothing = element("option", { text: "category\u2026", value: "" });
  const names = new Map(entries.map((entry) => [entry.id, entry.name]));
  list.replaceChildren(nothing, ...entries.map((entry) => {
    const above = names.get(entry.parent);
    const text = above ? `${above} \u203a ${entry.name}` : entry.name;
    return element("option", { text, value: entry.id });
  }));
}
