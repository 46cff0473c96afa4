// The large view of one image, the sortable table of classes, the prototypes, keys and theme.
const viewer = control("viewer");
let current = null;

function openViewer(card) {
  current = card;
  if (!viewer.open) viewer.showModal();
  const drawing = makeDrawing(card, true);
  drawing.style.setProperty("--ratio", card.ratio);
  control("stage").replaceChildren(drawing);
  control("viewer-title").textContent = card.id;
  const size = card.width ? `${card.width} × ${card.height} px` : "size unknown";
  const notes = [make("span", "quiet", `${card.status} · ${size}`)];
  if (card.error) notes.push(make("br"), make("span", "why", card.error));
  if (card.reasons.length) notes.push(make("br"), make("span", "why", card.reasons.join(" · ")));
  if (card.missed?.length) notes.push(make("br"), make("span", "why", `missed: ${card.missed.map((m) => m.name).join(", ")}`));
  control("viewer-notes").replaceChildren(...notes);
  control("instances").tBodies[0].replaceChildren(...card.instances.map((instance, i) => instanceRow(card, instance, i, drawing)));
  control("instances").hidden = card.instances.length === 0;
}

function instanceRow(card, instance, index, drawing) {
  const row = make("tr");
  const box = make("input");
  box.type = "checkbox";
  box.checked = !card.off.has(index);
  box.setAttribute("aria-label", `Draw ${className(instance.label)} number ${index + 1}`);
  box.addEventListener("change", () => {
    if (box.checked) card.off.delete(index);
    else card.off.add(index);
    applyVisibility(card, drawing);
    if (card.drawn) applyVisibility(card, card.button.firstChild);
  });
  const name = make("th");
  name.scope = "row";
  const swatch = make("span", "swatch");
  swatch.style.setProperty("--c", instanceColour(instance, index));
  name.append(swatch, className(instance.label), instance.wrong ? make("span", "why", " false positive") : "");
  const first = make("td");
  first.append(box);
  const score = instance.mask_score === null ? instance.score.toFixed(3) : `${instance.score.toFixed(3)} (mask ${instance.mask_score.toFixed(3)})`;
  row.append(first, name, make("td", "number", score), make("td", "number", instance.area.toLocaleString("en")));
  row.dataset.index = index;
  for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]])
    row.addEventListener(event, () => point(drawing, index, on));
  return row;
}

function turn(step) {
  const next = shown[shown.indexOf(current) + step];
  if (next) openViewer(next);
}

function sortTable(table, column, heading) {
  const ascending = heading.getAttribute("aria-sort") ? heading.getAttribute("aria-sort") === "descending" : column === 0;
  const key = (row) => row.cells[column].dataset.sort;
  const compare = column === 0 ? (a, b) => key(a).localeCompare(key(b)) : (a, b) => Number(key(a)) - Number(key(b));
  const rows = [...table.tBodies[0].rows].sort((a, b) => (ascending ? 1 : -1) * compare(a, b));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  table.tBodies[0].replaceChildren(...rows);
}

function showPrototypes() {
  for (const article of document.querySelectorAll(".prototype")) {
    const view = report.prototypes[article.dataset.view];
    const frame = article.querySelector(".frame");
    const [x1, y1, x2, y2] = view.box;
    Object.assign(frame.style, { left: `${x1 * 100}%`, top: `${y1 * 100}%`, width: `${(x2 - x1) * 100}%`, height: `${(y2 - y1) * 100}%` });
    const most = Math.max(...view.coefficients.map(Math.abs));
    const rows = Math.ceil(view.coefficients.length / view.columns);
    for (const number of view.order) {
      const value = view.coefficients[number];
      const tile = make("div", "tile");
      const column = number % view.columns;
      const row = Math.floor(number / view.columns);
      tile.style.backgroundImage = `url("${view.sheet}")`;
      tile.style.backgroundSize = `${view.columns * 100}% ${rows * 100}%`;
      tile.style.backgroundPosition = `${(column / Math.max(1, view.columns - 1)) * 100}% ${(row / Math.max(1, rows - 1)) * 100}%`;
      const meter = make("meter", value < 0 ? "minus" : "");
      meter.max = most || 1;
      meter.value = Math.abs(value);
      meter.setAttribute("aria-label", `coefficient ${value.toFixed(2)}`);
      const item = make("li");
      item.append(tile, `${number}: ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`, meter);
      article.querySelector(".tiles").append(item);
    }
  }
}

function pressKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (viewer.open && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
    if (event.target.type !== "range") turn(event.key === "ArrowRight" ? 1 : -1);
    return;
  }
  if (["SELECT", "TEXTAREA"].includes(event.target.tagName) || ["range", "radio"].includes(event.target.type)) return;
  const layer = { m: "masks", b: "boxes", n: "names", t: "truth" }[event.key.toLowerCase()];
  if (layer && control(layer)) control(layer).click();
  else walk(event);
}

report.cards.forEach(makeCard);
fillChoices();
// where all instances are of one class, names are useless
if (Object.keys(report.classes).length === 1) control("names").defaultChecked = false;
for (const event of ["input", "change"]) document.querySelector(".controls").addEventListener(event, readControls);
document.querySelector(".controls").addEventListener("reset", () => setTimeout(readControls));
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
control("theme").addEventListener("change", (event) => { root.dataset.theme = event.target.value; });
control("previous").addEventListener("click", () => turn(-1));
control("next").addEventListener("click", () => turn(1));
control("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => current?.button.focus());
document.addEventListener("keydown", pressKey);
const classes = control("classes");
if (classes) {
  [...classes.tHead.rows[0].cells].forEach((heading, column) => heading.addEventListener("click", () => sortTable(classes, column, heading)));
  classes.tBodies[0].addEventListener("click", (event) => {
    const label = event.target.dataset.class;
    if (label === undefined) return;
    control("class").value = label;
    readControls();
    control("images").scrollIntoView();
  });
}
showPrototypes();
const ofClass = control("quality-class");
function showClassPlot() {
  for (const figure of control("class-plots").children) figure.hidden = figure.id !== ofClass.value;
}
if (ofClass) {
  ofClass.addEventListener("change", showClassPlot);
  showClassPlot();
}
readControls();
root.dataset.ready = String(Math.round(performance.now()));
