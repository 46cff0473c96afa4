// The gallery: filters, order, and cards. A card is drawn when it comes near the screen.
const root = document.documentElement;
const grid = document.getElementById("grid");
const control = (id) => document.getElementById(id);
const state = { set: "sample", label: null, status: "", mistakes: "", order: "given", score: 0, colour: "instance" };
let shown = [];

const nearby = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      nearby.unobserve(entry.target);
      drawCard(report.cards[entry.target.dataset.card]);
    }
  },
  { rootMargin: "600px" },
);

function makeCard(card, number) {
  card.off = new Set();
  card.number = number;
  card.ratio = card.width ? card.width / card.height : 1.5;
  card.element = make("li", "card");
  card.element.dataset.card = number;
  card.element.style.setProperty("--ratio", Math.max(0.4, Math.min(3.5, card.ratio)));
  card.button = make("button");
  card.button.type = "button";
  card.button.append(make("div", "drawing"));
  card.button.addEventListener("click", () => openViewer(card));
  const caption = make("div", "caption");
  const name = make("b", "", card.id.split(/[/#]/).slice(-2).join("/"));
  name.title = card.id;
  caption.append(name);
  if (card.reasons.length) caption.append(make("span", "why", card.reasons.join(" · ")));
  card.element.append(card.button, caption);
}

function drawCard(card) {
  card.drawn = true;
  card.button.replaceChildren(makeDrawing(card, false));
}

function fits(card) {
  if (state.set === "sample" && card.sampled === null) return false;
  if (state.set === "review" && card.reviewed === null) return false;
  if (state.status && card.status !== state.status) return false;
  if (state.label !== null && !card.instances.some((i) => i.label === state.label && i.score >= state.score)) return false;
  const wrong = card.instances.some((i) => i.wrong && i.score >= state.score);
  const missed = Boolean(card.missed?.length);
  if (state.mistakes === "any") return wrong || missed;
  if (state.mistakes === "wrong") return wrong;
  return state.mistakes !== "missed" || missed;
}

const lowest = (card) => shownInstances(card).at(-1)?.score ?? 2;
const place = (card) => (state.set === "review" ? card.reviewed : (card.sampled ?? report.cards.length + card.reviewed));
const ORDERS = {
  given: (a, b) => place(a) - place(b),
  worry: (a, b) => b.worry - a.worry || place(a) - place(b),
  most: (a, b) => shownInstances(b).length - shownInstances(a).length || place(a) - place(b),
  lowest: (a, b) => lowest(a) - lowest(b) || place(a) - place(b),
};

function update() {
  const before = shown;
  shown = report.cards.filter(fits).sort(ORDERS[state.order]);
  const same = before.length === shown.length && before.every((card, i) => card === shown[i]);
  if (!same) grid.replaceChildren(...shown.map((card) => card.element));
  let instances = 0;
  for (const card of shown) {
    instances += shownInstances(card).length;
    card.button.setAttribute("aria-label", describe(card));
    if (card.drawn) applyVisibility(card, card.button.firstChild);
    else nearby.observe(card.element);
  }
  const total = report.cards.length;
  control("count").textContent = `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} images, ${instances.toLocaleString("en")} instances`;
  control("nothing").hidden = shown.length > 0;
  control("score-value").textContent = state.score.toFixed(2);
}

function redraw() {
  for (const card of report.cards) if (card.drawn) drawCard(card);
}

function readControls() {
  state.set = document.querySelector("input[name=set]:checked").value;
  state.label = control("class").value === "" ? null : Number(control("class").value);
  state.status = control("status").value;
  state.mistakes = control("mistakes")?.value ?? "";
  state.order = control("order").value;
  state.score = Number(control("score").value);
  const recoloured = state.colour !== control("colour").value;
  state.colour = control("colour").value;
  for (const layer of ["masks", "boxes", "names", "truth"]) root.classList.toggle(`no-${layer}`, control(layer)?.checked === false);
  if (recoloured) redraw();
  update();
}

function fillChoices() {
  const labels = new Set(report.cards.flatMap((card) => card.instances.map((instance) => instance.label)));
  const byName = [...labels].sort((a, b) => className(a).localeCompare(className(b)));
  control("class").append(...byName.map((label) => new Option(className(label), label)));
  const statuses = [...new Set(report.cards.map((card) => card.status))].sort();
  control("status").append(...statuses.map((status) => new Option(status, status)));
}

// arrow keys move over the cards; up and down go by rows of the layout
function walk(event) {
  const index = shown.findIndex((card) => card.button === document.activeElement);
  if (index < 0) return;
  let target;
  if (event.key === "ArrowRight") target = shown[index + 1];
  else if (event.key === "ArrowLeft") target = shown[index - 1];
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const here = shown[index].element.getBoundingClientRect();
    const step = event.key === "ArrowDown" ? 1 : -1;
    let row = null;
    for (let i = index + step; i >= 0 && i < shown.length; i += step) {
      const box = shown[i].element.getBoundingClientRect();
      if ((box.top - here.top) * step <= 1) continue;
      row ??= box.top;
      if (Math.abs(box.top - row) > 1) break;
      if (!target || Math.abs(box.left - here.left) < Math.abs(target.element.getBoundingClientRect().left - here.left)) target = shown[i];
    }
  } else return;
  event.preventDefault();
  target?.button.focus();
}
