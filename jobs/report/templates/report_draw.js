// Draws one image: its thumbnail, outlines as SVG in the image's own pixels, names as small HTML labels.
// Text from the table is inserted only as text nodes.
const report = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeSvg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// hues a golden angle apart, of equal perceived lightness: dark text is readable on all of them
function colour(number) {
  return `oklch(${number % 2 ? 74 : 82}% 0.17 ${Math.round((number * 137.508 + 235) % 360)})`;
}

function instanceColour(instance, index) {
  return colour(state.colour === "class" ? instance.label : index);
}

function className(label) {
  return report.classes[label] ?? `class ${label}`;
}

function nameTag(text, box, card, css) {
  const tag = make("span", css, text);
  // near the right edge a tag grows to the left
  if (box[0] > 0.7 * card.width) tag.style.right = `${Math.max(0, 100 - ((box[0] + box[2]) / card.width) * 100)}%`;
  else tag.style.left = `${Math.max(0, (box[0] / card.width) * 100)}%`;
  tag.style.top = `${Math.max(0, Math.min(94, (box[1] / card.height) * 100))}%`;
  return tag;
}

// a card names only this many instances, the best ones, without scores
const NAMES_ON_CARD = 6;
// a large view with more instances than this shows only the name under the pointer
const CROWD = 30;

function makeDrawing(card, large) {
  const drawing = make("div", "drawing");
  if (!card.image) {
    drawing.append(make("div", "failed", `${card.status}${card.error ? `: ${card.error}` : ""}`));
    return drawing;
  }
  const image = make("img");
  if (large && card.instances.length > CROWD) drawing.classList.add("crowded");
  image.src = card.image;
  image.alt = large ? describe(card) : "";
  image.decoding = "async";
  const svg = makeSvg("svg", { viewBox: `0 0 ${card.width} ${card.height}`, "aria-hidden": "true", preserveAspectRatio: "none" });
  const tags = make("div");
  tags.setAttribute("aria-hidden", "true");
  // the best instance is drawn last, so that it is on top
  for (let i = card.instances.length - 1; i >= 0; i--) {
    const instance = card.instances[i];
    const group = makeSvg("g", { class: instance.wrong ? "instance wrong" : "instance", "data-index": i });
    group.style.setProperty("--c", instanceColour(instance, i));
    group.append(makeSvg("path", { class: "mask", d: instance.path }));
    const [x, y, width, height] = instance.box;
    group.append(makeSvg("rect", { class: "box", x, y, width, height }));
    svg.append(group);
    if (!large && i >= NAMES_ON_CARD) continue;
    const text = large ? `${className(instance.label)} ${instance.score.toFixed(2)}` : className(instance.label);
    const tag = nameTag(text, instance.box, card, instance.wrong ? "name wrong" : "name");
    tag.dataset.index = i;
    tag.style.setProperty("--c", instanceColour(instance, i));
    tags.append(tag);
    if (large) group.addEventListener("mouseenter", () => point(drawing, i, true));
    if (large) group.addEventListener("mouseleave", () => point(drawing, i, false));
  }
  for (const missed of card.missed ?? []) {
    const group = makeSvg("g", { class: "missed" });
    group.append(makeSvg("path", { d: missed.path }));
    svg.append(group);
    if (large) tags.append(nameTag(`missed ${missed.name}`, missed.box, card, "name missed"));
  }
  drawing.append(image, svg, tags);
  applyVisibility(card, drawing);
  return drawing;
}

// highlights one instance of the large view: its outline, its name and its row
function point(drawing, index, on) {
  for (const element of drawing.querySelectorAll(`[data-index="${index}"]`)) element.classList.toggle("hover", on);
  document.querySelector(`#instances tr[data-index="${index}"]`)?.classList.toggle("hover", on);
}

// shows and hides the instances of a drawing: by score, by class, and by the instances' own switches
function applyVisibility(card, drawing) {
  for (const element of drawing.querySelectorAll("[data-index]")) {
    const instance = card.instances[element.dataset.index];
    const hidden = instance.score < state.score || card.off.has(Number(element.dataset.index));
    element.style.display = hidden ? "none" : "";
    element.classList.toggle("other", state.label !== null && instance.label !== state.label);
  }
}

function describe(card) {
  if (card.status !== "ok") return `${card.id}: ${card.status}`;
  const counts = new Map();
  for (const instance of shownInstances(card)) counts.set(instance.label, (counts.get(instance.label) ?? 0) + 1);
  const words = [...counts].map(([label, count]) => `${count} ${className(label)}`);
  return `${card.id}: ${words.join(", ") || "nothing found"}`;
}

function shownInstances(card) {
  return card.instances.filter((instance) => instance.score >= state.score);
}
