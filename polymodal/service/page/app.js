// The page: a query of any mix of modalities, its results, and nothing else. Everything shown comes from /api/info.
const $ = (id) => document.getElementById(id);
const state = { info: null, files: new Map(), like: null, picks: new Map(), recommending: false, running: null };

const ICONS = {
  image: "M3 4.500h14v11H3zM3 13l4-4 3.500 3.500 2-2L17 15M13 8h.01",
  audio: "M4 8v4M7 5.500v9M10 3.500v13M13 6.500v7M16 8.500v3",
  video: "M3 5h10v10H3zM13 9l4-2.500v7L13 11",
  file: "M5 3h7l3 3v11H5zM12 3v3h3",
  cross: "M5 5l10 10M15 5L5 15",
  heart: "M10 16.5S3 12.500 3 7.800A3.600 3.600 0 0 1 10 6.500a3.600 3.600 0 0 1 7 1.300C17 12.500 10 16.500 10 16.500z",
};
const WORDS = { image: "Photo", audio: "Sound", video: "Clip" };

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function icon(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[kind] || ICONS.file);
  svg.append(path);
  return svg;
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });
const shown = (value) =>
  Array.isArray(value) ? value.map(shown).join(", ") : typeof value === "number" ? number(value) : String(value);
const wordFor = (one) => (one.name === one.kind && WORDS[one.kind]) || one.name;

// -- talking to the service -------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(body, status) {
    super(body.hint || body.message || `The service answered ${status}.`);
    this.body = body;
    this.status = status;
  }
}

async function ask(url, options = {}) {
  const response = await fetch(url, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(body, response.status);
  return body;
}

// -- building the panel -----------------------------------------------------------------------------------------------

function buildPanel(info) {
  const texts = info.modalities.filter((one) => one.entry === "text");
  texts.forEach((one, place) => {
    const input = el("input", {
      type: "text", name: one.name, enterKeyHint: "search", maxLength: 20000,
      placeholder: place === 0 ? "What are you looking for?" : `${one.name} …`,
    });
    input.setAttribute("aria-label", place === 0 ? "What are you looking for?" : one.name);
    const name = place === 0 ? null : el("span", { className: "name" }, one.name);
    $("texts").append(el("label", {}, name, input, place === 0 ? goButton() : null));
  });
  if (!texts.length) $("texts").append(el("label", {}, el("span", { className: "name" }, "Add something to search with"), goButton()));
  for (const one of info.modalities.filter((each) => each.entry === "file")) $("files").append(filePicker(one));
  if (info.modalities.some((one) => one.entry === "pairs")) {
    $("attributes-toggle").hidden = false;
    addPair();
  }
  if (info.attributes.length) {
    $("filters-toggle").hidden = false;
    $("facets").append(...byUse(info.attributes).map(facet));
    buildSuggestions(info.attributes);
  }
}

const goButton = () => el("button", { type: "submit", className: "go" }, "Search");

function filePicker(one) {
  const input = el("input", { type: "file", accept: one.accept, multiple: one.many });
  input.addEventListener("change", () => {
    addFiles(one, [...input.files]);
    input.value = "";
  });
  return el("label", { className: "tool", title: `Search with a ${one.name}` }, input, icon(one.kind), el("span", {}, wordFor(one)));
}

function askAnew() {
  state.like = null;
  state.recommending = false;
}

function addFiles(one, files) {
  if (!files.length) return;
  askAnew();
  const held = one.many ? state.files.get(one.name) || [] : [];
  for (const old of one.many ? [] : state.files.get(one.name) || []) URL.revokeObjectURL(old.url);
  const fresh = (one.many ? files : files.slice(0, 1)).map((file) => ({ file, url: URL.createObjectURL(file) }));
  state.files.set(one.name, [...held, ...fresh]);
  search();
}

function buildSuggestions(attributes) {
  const names = el("datalist", { id: "names" }, ...attributes.map((one) => el("option", { value: one.name })));
  document.body.append(names);
  attributes.forEach((one, place) => {
    const options = one.values.map(([value]) => el("option", { value: String(value) }));
    document.body.append(el("datalist", { id: `values-${place}` }, ...options));
  });
}

function addPair(focus = false) {
  const name = el("input", { className: "field name", type: "text", placeholder: "name", maxLength: 200, list: "names" });
  const value = el("input", { className: "field value", type: "text", placeholder: "value", maxLength: 500 });
  name.setAttribute("aria-label", "Attribute name");
  value.setAttribute("aria-label", "Attribute value");
  name.addEventListener("input", () => {
    const place = state.info.attributes.findIndex((one) => one.name === name.value);
    if (place >= 0) value.setAttribute("list", `values-${place}`);
    else value.removeAttribute("list");
  });
  const drop = el("button", { type: "button", className: "x", title: "Remove" }, icon("cross"));
  drop.setAttribute("aria-label", "Remove this attribute");
  const row = el("div", { className: "pair" }, name, value, drop);
  drop.addEventListener("click", () => {
    const used = name.value && value.value;
    row.remove();
    if (!$("pairs").children.length) addPair();
    if (used) search();
  });
  $("pairs").append(row);
  if (focus) name.focus();
}

function facet(one) {
  const body = one.kind === "number" ? rangeOf(one) : optionsOf(one);
  const group = el("fieldset", {}, el("legend", {}, one.name), body);
  group.dataset.name = one.name;
  group.dataset.kind = one.kind;
  return group;
}

function rangeOf(one) {
  const end = (which) => {
    const input = el("input", { className: `field ${which}`, type: "number", step: "any", placeholder: one[which] === null ? "" : number(one[which]) });
    input.setAttribute("aria-label", `${one.name}, ${which === "min" ? "at least" : "at most"}`);
    return input;
  };
  return el("div", { className: "range" }, end("min"), "to", end("max"));
}

function optionsOf(one) {
  const options = one.values.slice(0, 16).map(([value, count]) => {
    const box = el("input", { type: "checkbox", value: JSON.stringify(value) });
    return el("label", { className: "option" }, box, el("span", {}, shown(value), el("small", {}, number(count))));
  });
  const body = el("div", { className: "options" }, ...options);
  if (one.values.length <= 16 && one.complete) return body;
  const place = state.info.attributes.indexOf(one);
  const other = el("input", { className: "field other", type: "text", placeholder: "another value", list: `values-${place}` });
  other.setAttribute("aria-label", `${one.name}, another value`);
  body.append(other);
  return body;
}

// -- reading the panel ------------------------------------------------------------------------------------------------

function texts() {
  return [...$("texts").querySelectorAll("input")].map((input) => [input.name, input.value.trim()]).filter(([, text]) => text);
}

function pairs() {
  const rows = [...$("pairs").children].map((row) => [row.querySelector(".name").value.trim(), row.querySelector(".value").value.trim(), row]);
  return rows.filter(([name, value]) => name && value).map(([name, value, row]) => {
    const known = state.info.attributes.find((one) => one.name === name);
    const isNumber = known && known.kind === "number" && Number.isFinite(Number(value));
    return [name, isNumber ? Number(value) : value, row];
  });
}

function where() {
  const filters = {};
  for (const group of $("facets").children) {
    const { name, kind } = group.dataset;
    const wanted = kind === "number" ? readRange(group) : readOptions(group);
    if (wanted) filters[name] = wanted;
  }
  return filters;
}

function readRange(group) {
  const out = {};
  for (const end of ["min", "max"]) {
    const value = group.querySelector(`.${end}`).value;
    if (value !== "" && Number.isFinite(Number(value))) out[end] = Number(value);
  }
  return Object.keys(out).length ? out : null;
}

function readOptions(group) {
  const values = [...group.querySelectorAll("input:checked")].map((box) => JSON.parse(box.value));
  const other = group.querySelector(".other");
  if (other && other.value.trim()) values.push(other.value.trim());
  return values.length ? values : null;
}

function clearFilters() {
  for (const input of $("facets").querySelectorAll("input")) {
    if (input.type === "checkbox") input.checked = false;
    else input.value = "";
  }
}

// -- chips: what the query is made of ---------------------------------------------------------------------------------

function chip(label, what, remove, picture) {
  const drop = el("button", { type: "button", className: "x" }, icon("cross"));
  drop.setAttribute("aria-label", `Remove ${label} ${what}`);
  drop.addEventListener("click", remove);
  const image = picture ? el("img", { src: picture, alt: "" }) : null;
  image?.addEventListener("error", () => image.remove());
  return el("span", { className: "chip", role: "listitem" }, image, el("em", {}, label), el("span", { className: "what", title: what }, what), drop);
}

function describe(wanted) {
  if (Array.isArray(wanted)) return wanted.map(shown).join(" or ");
  const { min, max } = wanted;
  if (min === undefined) return `at most ${number(max)}`;
  return max === undefined ? `at least ${number(min)}` : `${number(min)} to ${number(max)}`;
}

function drawChips() {
  const out = [];
  const clearing = (act) => () => { act(); search(); };
  for (const [id, title] of state.picks) out.push(chip("picked", title, () => pick({ id, title })));
  if (state.picks.size && !state.recommending) out.push(recommendButton());
  if (state.like) out.push(chip("like", state.like.title, clearing(() => { state.like = null; })));
  else if (!state.recommending) {
    for (const [name, text] of texts()) {
      out.push(chip(name, text, clearing(() => { $("texts").querySelector(`input[name="${CSS.escape(name)}"]`).value = ""; })));
    }
    for (const one of state.info.modalities) {
      (state.files.get(one.name) || []).forEach((held, place) => {
        const remove = clearing(() => {
          URL.revokeObjectURL(held.url);
          state.files.get(one.name).splice(place, 1);
        });
        out.push(chip(wordFor(one).toLowerCase(), held.file.name, remove, one.kind === "image" ? held.url : null));
      });
    }
    for (const [name, value, row] of pairs()) out.push(chip(name, shown(value), clearing(() => row.querySelector(".x").click())));
  }
  const filters = Object.entries(where());
  for (const [name, wanted] of filters) {
    out.push(chip(`only ${name}`, describe(wanted), clearing(() => {
      const group = [...$("facets").children].find((one) => one.dataset.name === name);
      for (const input of group.querySelectorAll("input")) input.type === "checkbox" ? (input.checked = false) : (input.value = "");
    })));
  }
  $("chips").replaceChildren(...out);
  $("filters-count").hidden = !filters.length;
  $("filters-count").textContent = filters.length;
}

// -- searching --------------------------------------------------------------------------------------------------------

function request() {
  const filters = where();
  if (state.recommending) {
    const form = new FormData();
    form.append("history", JSON.stringify([...state.picks.keys()]));
    if (Object.keys(filters).length) form.append("where", JSON.stringify(filters));
    return ["/api/recommend", { method: "POST", body: form }];
  }
  if (state.like) {
    const query = Object.keys(filters).length ? `?where=${encodeURIComponent(JSON.stringify(filters))}` : "";
    return [`/api/similar/${encodeURIComponent(state.like.id)}${query}`, {}];
  }
  const form = new FormData();
  texts().forEach(([name, text]) => form.append(name, text));
  for (const [name, held] of state.files) held.forEach((one) => form.append(name, one.file, one.file.name));
  const table = state.info.modalities.find((one) => one.entry === "pairs");
  if (table && pairs().length) form.append(table.name, JSON.stringify(pairs().map(([name, value]) => [name, value])));
  if ([...form.keys()].length === 0) return null;
  if (Object.keys(filters).length) form.append("where", JSON.stringify(filters));
  return ["/api/search", { method: "POST", body: form }];
}

async function search(remember = true) {
  if (state.running) state.running.abort();
  state.running = null;
  drawChips();
  if (remember) rememberQuery();
  const what = request();
  if (!what) return welcome();
  const running = (state.running = new AbortController());
  const [url, options] = what;
  loading();
  try {
    const found = await ask(url, { ...options, signal: running.signal });
    if (state.running === running) draw(found);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (state.running === running) $("results").ariaBusy = "false";
  }
}

function rememberQuery() {
  const query = new URLSearchParams();
  if (state.recommending) [...state.picks.keys()].forEach((id) => query.append("picked", id));
  else if (state.like) query.set("like", state.like.id);
  else texts().forEach(([name, text]) => query.set(name, text));
  const url = query.toString() ? `?${query}` : "/";
  if (url !== (location.search || "/")) history.pushState(null, "", url);
}

async function recall() {
  const query = new URLSearchParams(location.search);
  state.like = null;
  for (const input of $("texts").querySelectorAll("input")) input.value = query.get(input.name) || "";
  const titled = async (id) => [id, (await ask(`/api/items/${encodeURIComponent(id)}`).catch(() => ({}))).title || id];
  if (query.get("like")) {
    const [id, title] = await titled(query.get("like"));
    state.like = { id, title };
  }
  const picked = query.getAll("picked");
  state.recommending = picked.length > 0;
  if (picked.length) state.picks = new Map(await Promise.all(picked.map(titled)));
  search(false);
}

function toTop() {
  if ($("item").open) $("item").close();
  scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function moreLike(item) {
  state.recommending = false;
  state.like = { id: item.id, title: item.title || item.id };
  toTop();
  search();
}

// -- picks: what somebody likes, and what to recommend them -----------------------------------------------------------

function pick(item) {
  if (!state.picks.delete(item.id)) state.picks.set(item.id, item.title || item.id);
  for (const button of document.querySelectorAll(".pick")) button.setAttribute("aria-pressed", state.picks.has(button.dataset.id));
  // a list that was made of the picks follows them; one that was searched for stays
  if (!state.recommending) return drawChips();
  state.recommending = state.picks.size > 0;
  search();
}

function recommendButton() {
  const count = state.picks.size;
  const button = el("button", { type: "button", className: "pill", id: "recommend" }, `Recommend by ${count} ${count === 1 ? "pick" : "picks"}`);
  button.addEventListener("click", () => {
    state.recommending = true;
    state.like = null;
    toTop();
    search();
  });
  return button;
}

// -- drawing ----------------------------------------------------------------------------------------------------------

function loading() {
  $("results").ariaBusy = "true";
  $("status").textContent = "Searching …";
  const ghost = () => el("div", { className: "card ghost" }, el("div", { className: "face" }),
    el("div", { className: "body" }, el("div", { className: "line" }), el("div", { className: "line short" })));
  // an answer usually comes before the eye would see a ghost
  const running = state.running;
  setTimeout(() => {
    if (state.running === running && $("results").ariaBusy === "true") $("results").replaceChildren(...Array.from({ length: 8 }, ghost));
  }, 250);
}

function message(title, lines, bad = false, extra = null) {
  const text = lines.filter(Boolean).map((line) => el("p", {}, line));
  $("results").replaceChildren(el("div", { className: bad ? "message bad" : "message" }, el("h2", {}, title), ...text, extra));
}

function welcome() {
  $("status").textContent = "";
  const kinds = state.info.modalities.map((one) => (one.entry === "pairs" ? "attributes" : wordFor(one).toLowerCase()));
  const list = kinds.length > 1 ? `${kinds.slice(0, -1).join(", ")} or ${kinds.at(-1)}` : kinds[0];
  message("Search with whatever you have", [`By ${list}, or any mix of them. Drop a file anywhere on this page.`], false, tries());
}

const uses = (one) => one.values.reduce((sum, [, count]) => sum + count, 0);
const byUse = (attributes) => [...attributes].sort((a, b) => uses(b) - uses(a));

function tries() {
  const table = state.info.modalities.some((one) => one.entry === "pairs");
  const some = byUse(state.info.attributes.filter((one) => one.kind === "text" && one.values.length > 2)).slice(0, 4);
  if (!table || !some.length) return null;
  return el("div", { className: "tries" }, ...some.map((one) => {
    const [value] = one.values[0];
    const button = el("button", { type: "button", className: "pill" }, `${one.name}: ${shown(value)}`);
    button.addEventListener("click", () => {
      const row = $("pairs").lastElementChild;
      row.querySelector(".name").value = one.name;
      row.querySelector(".value").value = value;
      addPair();
      askAnew();
      search();
    });
    return button;
  }));
}

function fail(error) {
  $("status").textContent = "";
  const { body = {}, status } = error;
  if (status === undefined) return message("The service does not answer", ["Is it still running? Search again when it is."], true);
  const titles = { 413: "That is too large", 404: "There is no such item", 503: "Many searches are waiting" };
  const title = titles[status] || (body.reason ? `That file cannot be used: ${body.reason}` : "That query does not work");
  return message(title, [body.reason ? body.got : body.message], true);
}

function draw(found) {
  const count = found.results.length;
  const by = found.used.length ? `, by ${found.used.join(" + ")}` : "";
  const picks = `${state.picks.size} ${state.picks.size === 1 ? "pick" : "picks"}`;
  $("status").textContent = !count ? "" : state.recommending ? `${count} recommended, by ${picks}` : `${count} nearest${by}`;
  if (!count) return message("Nothing is left", ["No item satisfies these filters. Remove one and search again."]);
  $("results").replaceChildren(...found.results.map(card));
}

// the colour of a picture's upper corner goes on around it, so that pictures of any shape fill their square uncut
function framed(img) {
  img.addEventListener("load", () => {
    const canvas = el("canvas", { width: 16, height: 16 });
    const drawing = canvas.getContext("2d");
    drawing.drawImage(img, 0, 0, 16, 16);
    const [red, green, blue, alpha] = drawing.getImageData(0, 0, 1, 1).data;
    if (alpha === 255) img.style.backgroundColor = `rgb(${red} ${green} ${blue})`;
  });
  return img;
}

function face(item) {
  const picture = item.media.find((one) => one.kind === "image");
  const clip = item.media.find((one) => one.kind === "video");
  const words = () => el("span", { className: "words" }, el("span", {}, item.title || item.id));
  let show;
  if (picture) show = framed(el("img", { src: picture.url, alt: "", loading: "lazy", decoding: "async" }));
  else if (clip) show = el("video", { src: `${clip.url}#t=0.1`, muted: true, preload: "metadata", playsInline: true });
  else show = words();
  // a file that is gone or damaged becomes a card of words, never a broken picture
  show.addEventListener("error", () => show.replaceWith(words()));
  const kinds = [...new Set(item.media.map((one) => one.kind))].filter((kind) => kind !== "image");
  const marks = kinds.map((kind) => el("span", { title: `has ${kind}` }, icon(kind)));
  const button = el("button", { type: "button", className: "face" }, show, el("span", { className: "kinds" }, ...marks));
  button.setAttribute("aria-label", `Show ${item.title || item.id}`);
  button.addEventListener("click", () => open(item));
  return button;
}

function card(item) {
  const brief = Object.values(item.attributes).filter((value) => !Array.isArray(value) || value.length <= 2);
  const facts = brief.slice(0, 4).map(shown).join(" · ");
  const fill = el("i");
  fill.style.width = `${Math.max(0, Math.min(1, item.score)) * 100}%`;
  const score = el("div", { className: "score", title: `cosine ${item.score.toFixed(4)}` }, el("span", { className: "bar" }, fill), item.score.toFixed(2));
  const like = el("button", { type: "button", className: "like" }, "More like this");
  like.setAttribute("aria-label", `More like ${item.title || item.id}`);
  like.addEventListener("click", () => moreLike(item));
  const heart = el("button", { type: "button", className: "pick", title: "Pick it, and have others recommended" }, icon("heart"));
  heart.setAttribute("aria-label", `Pick ${item.title || item.id}`);
  heart.setAttribute("aria-pressed", state.picks.has(item.id));
  heart.dataset.id = item.id;
  heart.addEventListener("click", () => pick(item));
  const body = el("div", { className: "body" }, el("h3", { className: "title" }, item.title || item.id), facts ? el("p", { className: "facts-of" }, facts) : null, score);
  const node = el("article", { className: "card" }, face(item), body, el("div", { className: "acts" }, like, heart));
  node.dataset.id = item.id;
  return node;
}

function open(item) {
  const make = {
    image: (one) => framed(el("img", { src: one.url, alt: item.title, loading: "lazy" })),
    video: (one) => el("video", { src: one.url, controls: true, loop: true, playsInline: true }),
    audio: (one) => el("audio", { src: one.url, controls: true, preload: "metadata" }),
  };
  const media = item.media.filter((one) => make[one.kind]).map((one) => {
    const node = make[one.kind](one);
    node.addEventListener("error", () => node.remove());
    return node;
  });
  $("item-media").replaceChildren(...media);
  $("item-title").textContent = item.title || item.id;
  $("item-id").textContent = item.title ? item.id : "";
  $("item-attributes").replaceChildren(...Object.entries(item.attributes).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, shown(value))]));
  $("item-like").onclick = () => moreLike(item);
  $("item").showModal();
}

// -- events -----------------------------------------------------------------------------------------------------------

function toggle(name) {
  $(`${name}-toggle`).addEventListener("click", () => {
    $(name).hidden = !$(name).hidden;
    $(`${name}-toggle`).setAttribute("aria-expanded", String(!$(name).hidden));
    if (!$(name).hidden) $(name).querySelector("input")?.focus();
  });
}

function listen() {
  $("query").addEventListener("submit", (event) => {
    event.preventDefault();
    askAnew();
    search();
  });
  $("filters").addEventListener("change", () => search());
  $("filters-clear").addEventListener("click", () => { clearFilters(); search(); });
  $("pair-add").addEventListener("click", () => addPair(true));
  $("attributes").addEventListener("change", () => {
    if (pairs().length) {
      askAnew();
      search();
    }
  });
  ["attributes", "filters"].forEach(toggle);
  $("item").addEventListener("click", (event) => event.target === $("item") && $("item").close());
  $("item").addEventListener("close", () => $("item-media").replaceChildren());
  addEventListener("popstate", recall);
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, textarea") || $("item").open) return;
    event.preventDefault();
    $("texts").querySelector("input")?.focus();
  });
  listenToDrops();
}

function listenToDrops() {
  let depth = 0;
  const over = (change) => {
    depth = Math.max(0, depth + change);
    $("query").classList.toggle("dropping", depth > 0);
  };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => hasFiles(event) && over(1));
  addEventListener("dragleave", (event) => hasFiles(event) && over(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over(-depth);
    askAnew();
    for (const one of state.info.modalities.filter((each) => each.entry === "file")) {
      addFiles(one, [...event.dataTransfer.files].filter((file) => file.type.startsWith(`${one.kind}/`)));
    }
  });
}

async function start() {
  try {
    state.info = await ask("/api/info");
  } catch (error) {
    return fail(error);
  }
  const { info } = state;
  $("facts").textContent = `${number(info.items)} items`;
  $("facts").title = `model ${info.model}, ${info.width} numbers an item`;
  buildPanel(info);
  listen();
  return recall();
}

start();
