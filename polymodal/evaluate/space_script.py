"""What makes the map of the report answer to pointer and keys. It asks no server for anything."""

__all__ = ["SCRIPT"]

SCRIPT = """
(() => {
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("space-data").textContent);
const svg = $("space-map"), card = $("space-card"), legend = $("space-legend"), box = $("space-box");
const dots = [...$("space-points").children];
const NS = "http://www.w3.org/2000/svg";
let colouring = 0, only = null, chosen = -1, shown = -1;
box.classList.add("live");

const make = (name, attributes, space) => {
  const element = space ? document.createElementNS(NS, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value; else element.setAttribute(key, value);
  }
  return element;
};
const thumb = (i, attributes) => {
  const number = data.thumbs[i], side = data.side;
  if (number < 0) return null;
  const view = [number % data.across * side, Math.floor(number / data.across) * side, side, side].join(" ");
  const picture = make("svg", {viewBox: view, ...attributes}, true);
  picture.append(make("use", {href: "#space-sheet"}, true));
  return picture;
};
const code = (i) => data.colourings.length ? data.colourings[colouring].codes[i] : -1;
const colour = (i) => code(i) < 0 ? data.others : data.palette[code(i)];

function paint() {
  dots.forEach((dot, i) => {
    dot.setAttribute("fill", colour(i));
    dot.setAttribute("opacity", only === null || only === code(i) ? 0.82 : 0.07);
  });
  legend.replaceChildren();
  if (!data.colourings.length) return;
  const {names, codes} = data.colourings[colouring];
  const entries = names.map((name, at) => [at, name]);
  if (codes.some((c) => c < 0)) entries.push([-1, "others"]);
  for (const [at, name] of entries) {
    const button = make("button", {type: "button", "aria-pressed": String(only === at)});
    const count = codes.filter((c) => c === at).length;
    button.append(make("i", {style: "background:" + (at < 0 ? data.others : data.palette[at])}),
      make("span", {text: name}), make("small", {text: String(count)}));
    button.addEventListener("click", () => {
      only = only === at ? null : at;
      const place = [...legend.children].indexOf(button.parentElement);
      paint();
      legend.children[place].firstChild.focus();
    });
    const entry = make("li", {});
    entry.append(button);
    legend.append(entry);
  }
}

function ring(i, r, kind) {
  const [x, y] = data.at[i];
  return make("circle", {cx: x, cy: y, r, class: kind}, true);
}

function show(i) {
  if (i === shown) return;
  shown = i;
  const marks = $("space-marks");
  marks.replaceChildren();
  if (chosen >= 0) {
    for (const j of data.near[chosen]) {
      if (j < 0) continue;
      const [a, b] = data.at[chosen], [x, y] = data.at[j];
      marks.append(make("line", {x1: a, y1: b, x2: x, y2: y}, true), ring(j, 7, "near"));
    }
    marks.append(ring(chosen, 9, "chosen"));
  }
  card.replaceChildren();
  if (i < 0) {
    card.append(make("p", {class: "muted", text: "Point at an item, or choose one."}));
    return;
  }
  if (i !== chosen) marks.append(ring(i, 8, "hover"));
  card.append(thumb(i, {class: "large", role: "img", "aria-label": data.titles[i] || data.ids[i]})
    || make("div", {class: "large none", text: "no picture"}));
  card.append(make("b", {text: data.titles[i] || "(no title)"}), make("code", {text: data.ids[i]}));
  const facts = make("dl", {});
  for (const one of data.colourings) {
    const at = one.codes[i];
    facts.append(make("dt", {text: one.name}), make("dd", {text: at < 0 ? "another" : one.names[at]}));
  }
  card.append(facts, make("h4", {text: "Nearest in the space"}));
  const list = make("ol", {});
  data.near[i].forEach((j, n) => {
    if (j < 0) return;
    const button = make("button", {type: "button", title: data.ids[j]});
    button.append(thumb(j, {class: "small", "aria-hidden": "true"}) || make("i", {class: "small"}),
      make("span", {text: data.titles[j] || data.ids[j]}), make("small", {text: data.cosines[i][n].toFixed(2)}));
    button.addEventListener("click", () => choose(j));
    const entry = make("li", {});
    entry.append(button);
    list.append(entry);
  });
  card.append(list);
}

function choose(i) {
  chosen = i;
  shown = -2;
  show(i);
}

function under(event) {
  const area = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / area.width;
  const x = (event.clientX - area.left) * scale, y = (event.clientY - area.top) * scale;
  let best = -1, least = (16 * scale) ** 2;
  data.at.forEach(([a, b], i) => {
    const distance = (a - x) ** 2 + (b - y) ** 2;
    if (distance < least && (only === null || only === code(i))) [best, least] = [i, distance];
  });
  return best;
}

const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
function walk(event) {
  if (event.key === "Escape") { choose(-1); return; }
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  if (chosen < 0) { choose(0); return; }
  const [x, y] = data.at[chosen];
  let best = -1, least = Infinity;
  data.at.forEach(([a, b], i) => {
    const along = (a - x) * step[0] + (b - y) * step[1];
    const aside = Math.abs((a - x) * step[1]) + Math.abs((b - y) * step[0]);
    if (along > 0.1 && aside <= along && along + 2 * aside < least) [best, least] = [i, along + 2 * aside];
  });
  if (best >= 0) choose(best);
}

function pictures(on) {
  const group = $("space-pictures");
  group.replaceChildren();
  if (!on) return;
  for (const i of data.spread) {
    const [x, y] = data.at[i];
    group.append(make("rect", {x: x - 19, y: y - 19, width: 38, height: 38, rx: 4, fill: "#fff",
      stroke: colour(i), "stroke-width": 2}, true));
    group.append(thumb(i, {x: x - 17, y: y - 17, width: 34, height: 34}));
  }
}

svg.addEventListener("pointermove", (event) => { const i = under(event); show(i >= 0 ? i : chosen); });
svg.addEventListener("pointerleave", () => show(chosen));
svg.addEventListener("click", (event) => choose(under(event)));
svg.addEventListener("keydown", walk);
for (const input of box.querySelectorAll('input[name="space-colour"]')) {
  input.addEventListener("change", () => {
    colouring = Number(input.value);
    only = null;
    paint();
    pictures(Boolean($("space-show") && $("space-show").checked));
  });
}
if ($("space-show")) $("space-show").addEventListener("change", (event) => pictures(event.target.checked));
paint();
})();
"""
