// The page: which picture, which models, which settings.
import { Panel, setDivider } from "./panel.js";
import * as server from "./server.js";

const $ = (id) => document.getElementById(id);
const models = JSON.parse(document.body.dataset.models);
const limits = JSON.parse(document.body.dataset.limits);
const DAYLIGHT = 6500; // where the slider of the light changes nothing

let file = null; // kept, to send it again where the server has forgotten it
let about = null; // what the server said of it
let opening = null; // the promise of what is being sent
let hints = []; // { x, y, color }, in pixels of the picture
const notes = new Set();
const panels = new Map();

const told = {
  saturation: (value) => `${Math.round(100 * value)} %`,
  hue: (value) => `${value}°`,
  kelvin: (value) => (value === DAYLIGHT ? "unchanged" : `${value} K, ${value < DAYLIGHT ? "warmer" : "colder"}`),
};

function say(text) {
  $("status").textContent = text;
}

function describe() {
  if (!about) return say("");
  const pages = about.pages > 1
    ? `. It has ${about.pages} pages, of which this page shows and saves the first; the command does them all`
    : "";
  say([`${about.name}: ${about.width} × ${about.height} pixels${pages}`, ...notes].join(". "));
}

// A capital first, but where the sentence begins with a file's name.
function sentence(text, name) {
  const first = name && text.startsWith(name) ? text.charAt(0) : text.charAt(0).toUpperCase();
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function fail(error, name = about?.name) {
  $("error").textContent = sentence(error.message, name);
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
  describe();
}

function settle() {
  $("error").hidden = true;
}

function settings() {
  const value = (id) => Number($(id).value);
  const kelvin = value("kelvin");
  return {
    saturation: value("saturation"), hue: value("hue"), kelvin: kelvin === DAYLIGHT ? null : kelvin,
    hints: hints.map((hint) => `${hint.x},${hint.y},${hint.color}`),
  };
}

function repaint() {
  for (const name of Object.keys(told)) {
    const text = told[name](Number($(name).value));
    $(name).previousElementSibling.textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
  if (!about) return;
  for (const panel of panels.values()) {
    panel.drawDots(hints, about);
    panel.want(settings());
  }
}

// Do something with the picture that the server holds; where it holds it no more, send it again first.
async function held(action) {
  const { id } = about;
  try {
    return await action(id);
  } catch (error) {
    if (error.status !== 404 || !file) throw error;
    if (about.id === id) {
      opening ??= server.upload(file).finally(() => { opening = null; });
      about = await opening;
    }
    return action(about.id);
  }
}

let turn = 0; // of several pictures chosen one after the other only the last is shown

async function open(chosen, count) {
  settle();
  if (chosen.size > limits.bytes) {
    const megabytes = Number((limits.bytes / 1e6).toPrecision(4));
    return fail(new Error(`${chosen.name} is larger than ${megabytes} megabytes: make it smaller first`), chosen.name);
  }
  const mine = ++turn;
  say(`Opening ${chosen.name}…`);
  try {
    const found = await server.upload(chosen);
    if (mine !== turn) return server.forget(found.id);
    if (about) server.forget(about.id);
    [file, about, hints] = [chosen, found, []];
  } catch (error) {
    if (mine === turn) fail(error, chosen.name);
    return;
  }
  notes.clear();
  if (count > 1) notes.add(`It is the first of the ${count} files: one is shown at a time`);
  document.body.classList.add("open");
  $("choose").textContent = "Another picture";
  $("invitation").textContent = "or drop it, or paste it.";
  $("work").hidden = false;
  offerFormats();
  for (const panel of panels.values()) panel.show(about, server.beforeUrl(about.id));
  setDivider($("views"), 50);
  listHints();
  describe();
  repaint();
}

function offerFormats() {
  const own = { value: about.format, text: `${about.format}, as it came` };
  const offered = about.format === "PNG" ? [own] : [own, { value: "PNG", text: "PNG" }];
  $("format").replaceChildren(...offered.map(({ value, text }) => new Option(text, value)));
}

async function download(panel) {
  settle();
  panel.button.disabled = true;
  say("Painting the whole picture…");
  try {
    const wanted = { model: panel.model, format: $("format").value, ...settings() };
    const { blob, name } = await held((id) => server.result(id, wanted));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    describe();
  } catch (error) {
    fail(error);
  } finally {
    panel.button.disabled = false;
    panel.button.focus({ preventScroll: true });
  }
}

// Hints

function pixel({ x, y }) {
  return {
    x: Math.min(about.width - 1, Math.floor(x * about.width)),
    y: Math.min(about.height - 1, Math.floor(y * about.height)),
  };
}

function listHints() {
  $("hints").replaceChildren(...hints.map((hint, i) => {
    const item = document.createElement("li");
    const color = document.createElement("input");
    const where = document.createElement("span");
    const remove = document.createElement("button");
    Object.assign(color, { type: "color", value: hint.color });
    color.setAttribute("aria-label", `Color of hint ${i + 1}`);
    color.addEventListener("input", () => { hint.color = color.value; repaint(); });
    where.textContent = `at ${hint.x}, ${hint.y}`;
    Object.assign(remove, { type: "button", className: "plain", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove hint ${i + 1}`);
    remove.addEventListener("click", () => page.removeHint(i));
    item.append(color, where, remove);
    return item;
  }));
}

function chooseTool(name) {
  document.querySelector(`input[name="tool"][value="${name}"]`).checked = true;
  document.body.classList.toggle("hinting", name === "hint");
}

const page = {
  views: $("views"),
  hinting: () => document.body.classList.contains("hinting"),
  addHint(place) {
    settle();
    if (hints.length >= limits.hints) return fail(new Error(`the page takes ${limits.hints} hints: remove one first`));
    hints.push({ ...pixel(place), color: $("color").value });
    listHints();
    repaint();
  },
  moveHint(i, place) {
    Object.assign(hints[i], pixel(place));
    $("hints").children[i].querySelector("span").textContent = `at ${hints[i].x}, ${hints[i].y}`;
    repaint();
  },
  nudgeHint(i, x, y, times) {
    const step = (times * Math.max(about.width, about.height)) / 200;
    const shares = { x: (hints[i].x + 0.5 + x * step) / about.width, y: (hints[i].y + 0.5 + y * step) / about.height };
    page.moveHint(i, { x: Math.max(0, shares.x), y: Math.max(0, shares.y) });
  },
  removeHint(i) {
    hints.splice(i, 1);
    listHints();
    repaint();
    const left = $("hints").querySelectorAll("button");
    (left[Math.min(i, left.length - 1)] || $("middle")).focus();
  },
  paint: (model, wanted) => held((id) => server.paint(id, { model, ...wanted })),
  download,
  failed: fail,
  noted(text) {
    notes.add(text);
    describe();
  },
};

// Models

function showModel(name, shown) {
  if (!shown) {
    panels.get(name)?.close();
    panels.delete(name);
  } else if (!panels.has(name)) {
    panels.set(name, new Panel(name, page));
    if (about) panels.get(name).show(about, server.beforeUrl(about.id));
  }
  $("views").append(...models.filter((m) => panels.has(m.name)).map((m) => panels.get(m.name).element));
  document.body.classList.toggle("one", panels.size === 1);
  document.body.classList.toggle("many", panels.size > 4);
  const boxes = [...$("models").querySelectorAll("input")];
  for (const box of boxes) box.disabled = box.checked && panels.size === 1; // one has to stay
  setDivider($("views"), 50);
  repaint();
}

function listModels() {
  models.forEach((model, i) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: i < 2 });
    const name = document.createElement("span");
    name.textContent = model.name;
    name.append(Object.assign(document.createElement("small"), { textContent: model.description }));
    box.addEventListener("change", () => showModel(model.name, box.checked));
    label.append(box, name);
    $("models").append(label);
    if (box.checked) showModel(model.name, true);
  });
  $("models").hidden = models.length < 2;
}

// What a person does

function take(files) {
  if (files?.length) open(files[0], files.length);
}

$("file").addEventListener("change", () => {
  take($("file").files);
  $("file").value = ""; // the same file may be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  take(event.dataTransfer.files);
});
addEventListener("paste", (event) => take(event.clipboardData.files));
addEventListener("pagehide", () => about && server.forget(about.id));
$("controls").addEventListener("submit", (event) => event.preventDefault());
for (const name of Object.keys(told)) $(name).addEventListener("input", () => { settle(); repaint(); });
for (const tool of document.querySelectorAll('input[name="tool"]')) {
  tool.addEventListener("change", () => chooseTool(tool.value));
}
$("middle").addEventListener("click", () => {
  chooseTool("hint");
  page.addHint({ x: 0.5, y: 0.5 });
  panels.values().next().value.dots.lastElementChild?.focus();
});
$("reset").addEventListener("click", () => {
  for (const name of Object.keys(told)) $(name).value = $(name).defaultValue;
  repaint();
});
server.tellPlaces((others) => {
  if (others === null) describe();
  else if (others === 0) say("At work…");
  else say(`Waiting: ${others === 1 ? "one piece" : `${others} pieces`} of other people's work before yours…`);
});

chooseTool("compare");
listModels();
