// State of the page: the picture, the models, the settings.
import { clearVersions, showPalette, showVersions } from "./choices.js";
import { isFilm, openFilm } from "./clip.js";
import { Panel, setDivider } from "./panel.js";
import * as server from "./server.js";

const $ = (id) => document.getElementById(id);
const models = JSON.parse(document.body.dataset.models);
const limits = JSON.parse(document.body.dataset.limits);
const DAYLIGHT = 6500; // position of the temperature slider that changes nothing

let file = null; // for another upload, in case the server has removed it
let picture = null; // its properties, as the server returned them
let uploading = null; // promise of an upload in progress
let hints = []; // { x, y, color }, in pixels of the picture
let past = []; // earlier hints, for undo
let version = 0; // of the colorization: 0 is the usual one
const notes = new Set();
const panels = new Map();

const formatters = {
  saturation: (value) => `${Math.round(100 * value)} %`,
  hue: (value) => `${value}°`,
  kelvin: (value) => (value === DAYLIGHT ? "unchanged" : `${value} K, ${value < DAYLIGHT ? "warmer" : "colder"}`),
};

function showStatus(text) {
  $("status").textContent = text;
}

function showPicture() {
  if (!picture) return showStatus("");
  const pages = picture.pages > 1
    ? `. It has ${picture.pages} pages, of which this page uses the first; the colorize command uses all`
    : "";
  showStatus([`${picture.name}: ${picture.width} × ${picture.height} pixels${pages}`, ...notes].join(". "));
}

// Capitalize a sentence, unless it begins with a file's name, and end it with a period.
function sentence(text, name) {
  const first = name && text.startsWith(name) ? text.charAt(0) : text.charAt(0).toUpperCase();
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function fail(error, name = picture?.name) {
  $("error").textContent = sentence(error.message, name);
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
  showPicture();
}

function clearError() {
  $("error").hidden = true;
}

function settings() {
  const value = (id) => Number($(id).value);
  const kelvin = value("kelvin");
  return {
    saturation: value("saturation"), hue: value("hue"), kelvin: kelvin === DAYLIGHT ? null : kelvin,
    hints: hints.map((hint) => `${hint.x},${hint.y},${hint.color}`), restore: $("restore").checked, version,
  };
}

function repaint() {
  for (const name of Object.keys(formatters)) {
    const text = formatters[name](Number($(name).value));
    $(name).previousElementSibling.textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
  if (!picture) return;
  for (const panel of panels.values()) {
    panel.drawDots(hints, picture);
    panel.update(settings());
  }
}

// Call an action with the id of the uploaded picture. If the server has removed the picture, upload it again first.
async function withUpload(action) {
  const { id } = picture;
  try {
    return await action(id);
  } catch (error) {
    if (error.status !== 404 || !file) throw error;
    if (picture.id === id) {
      uploading ??= server.upload(file).finally(() => { uploading = null; });
      picture = await uploading;
    }
    return action(picture.id);
  }
}

let opened = 0; // number of pictures chosen so far: only the latest one is shown

async function open(chosen, count) {
  clearError();
  if (chosen.size > limits.bytes) {
    const megabytes = Number((limits.bytes / 1e6).toPrecision(4));
    return fail(new Error(`${chosen.name} is larger than ${megabytes} megabytes: make it smaller first`), chosen.name);
  }
  if (isFilm(chosen, limits.films)) {
    return openFilm(chosen, panels.keys().next().value).catch((error) => fail(error, chosen.name));
  }
  const number = ++opened;
  showStatus(`Opening ${chosen.name}…`);
  try {
    const found = await server.upload(chosen);
    if (number !== opened) return server.remove(found.id);
    if (picture) server.remove(picture.id);
    [file, picture] = [chosen, found];
  } catch (error) {
    if (number === opened) fail(error, chosen.name);
    return;
  }
  notes.clear();
  if (count > 1) notes.add(`It is the first of ${count} files: the page shows one at a time`);
  if (picture.colored) notes.add("It is in color already: its own colors are replaced");
  $("condition").textContent = picture.faded ? "This print is faded." : "Stretch faded tones to full black and white.";
  document.body.classList.add("open");
  $("choose").textContent = limits.films.length ? "Another picture or film" : "Another picture";
  $("invitation").textContent = "or drop or paste one.";
  $("work").hidden = false;
  offerFormats();
  for (const panel of panels.values()) panel.show(picture, server.beforeUrl(picture.id));
  setDivider($("views"), 50);
  showPicture();
  reset();
}

// Settings belong to one picture.
function reset() {
  for (const name of Object.keys(formatters)) $(name).value = $(name).defaultValue;
  [hints, past, version] = [[], [], 0];
  $("restore").checked = false;
  clearVersions($("strip"));
  showPalette($("palette"), []);
  listHints();
  repaint();
}

function offerFormats() {
  const own = { value: picture.format, text: `${picture.format}, as uploaded` };
  const offered = picture.format === "PNG" ? [own] : [own, { value: "PNG", text: "PNG" }];
  $("format").replaceChildren(...offered.map(({ value, text }) => new Option(text, value)));
}

async function download(panel) {
  clearError();
  panel.button.disabled = true;
  showStatus("Colorizing at full size…");
  try {
    const wanted = { model: panel.model, format: $("format").value, ...settings() };
    const { blob, name } = await withUpload((id) => server.result(id, wanted));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    showPicture();
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
    x: Math.min(picture.width - 1, Math.floor(x * picture.width)),
    y: Math.min(picture.height - 1, Math.floor(y * picture.height)),
  };
}

// Keep the hints as they are, so that the next change can be undone.
function remember() {
  past.push(hints.map((hint) => ({ ...hint })));
}

async function offerColors(hint) {
  const { model } = panels.values().next().value;
  try {
    const colors = await withUpload((id) => server.palette(id, { model, x: hint.x, y: hint.y }));
    if (hints.at(-1) !== hint) return;
    showPalette($("palette"), colors, (color) => {
      remember();
      hint.color = color;
      $("color").value = color;
      listHints();
      repaint();
    });
  } catch (error) {
    fail(error);
  }
}

function listHints() {
  $("undo").disabled = !past.length;
  $("hints").replaceChildren(...hints.map((hint, i) => {
    const item = document.createElement("li");
    const color = document.createElement("input");
    const where = document.createElement("span");
    const remove = document.createElement("button");
    Object.assign(color, { type: "color", value: hint.color });
    color.setAttribute("aria-label", `Color of hint ${i + 1}`);
    color.addEventListener("focus", remember, { once: true });
    color.addEventListener("input", () => { hint.color = color.value; $("undo").disabled = !past.length; repaint(); });
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
  addHint(point) {
    clearError();
    if (hints.length >= limits.hints) return fail(new Error(`the page takes ${limits.hints} hints: remove one first`));
    remember();
    hints.push({ ...pixel(point), color: $("color").value });
    listHints();
    repaint();
    offerColors(hints.at(-1));
  },
  remember,
  moveHint(i, point) {
    Object.assign(hints[i], pixel(point));
    $("hints").children[i].querySelector("span").textContent = `at ${hints[i].x}, ${hints[i].y}`;
    repaint();
  },
  nudgeHint(i, x, y, times) {
    remember();
    const step = (times * Math.max(picture.width, picture.height)) / 200;
    const shares = { x: (hints[i].x + 0.5 + x * step) / picture.width, y: (hints[i].y + 0.5 + y * step) / picture.height };
    page.moveHint(i, { x: Math.max(0, shares.x), y: Math.max(0, shares.y) });
  },
  removeHint(i) {
    remember();
    hints.splice(i, 1);
    showPalette($("palette"), []);
    listHints();
    repaint();
    const left = $("hints").querySelectorAll("button");
    (left[Math.min(i, left.length - 1)] || $("middle")).focus();
  },
  paint: (model, wanted) => withUpload((id) => server.paint(id, { model, ...wanted })),
  download,
  fail,
  addNote(text) {
    notes.add(text);
    showPicture();
  },
};

// Models

function showModel(name, shown) {
  if (!shown) {
    panels.get(name)?.close();
    panels.delete(name);
  } else if (!panels.has(name)) {
    panels.set(name, new Panel(name, page));
    if (picture) panels.get(name).show(picture, server.beforeUrl(picture.id));
  }
  $("views").append(...models.filter((m) => panels.has(m.name)).map((m) => panels.get(m.name).element));
  document.body.classList.toggle("one", panels.size === 1);
  document.body.classList.toggle("many", panels.size > 4);
  const boxes = [...$("models").querySelectorAll("input")];
  for (const box of boxes) box.disabled = box.checked && panels.size === 1; // at least one stays selected
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

// Events

function openFirst(files) {
  if (files?.length) open(files[0], files.length);
}

$("file").addEventListener("change", () => {
  openFirst($("file").files);
  $("file").value = ""; // so that choosing the same file again is an event
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
  openFirst(event.dataTransfer.files);
});
addEventListener("paste", (event) => openFirst(event.clipboardData.files));
addEventListener("pagehide", () => picture && server.remove(picture.id));
$("controls").addEventListener("submit", (event) => event.preventDefault());
for (const name of Object.keys(formatters)) $(name).addEventListener("input", () => { clearError(); repaint(); });
for (const tool of document.querySelectorAll('input[name="tool"]')) {
  tool.addEventListener("change", () => chooseTool(tool.value));
}
$("middle").addEventListener("click", () => {
  chooseTool("hint");
  page.addHint({ x: 0.5, y: 0.5 });
  panels.values().next().value.dots.lastElementChild?.focus();
});
$("undo").addEventListener("click", () => {
  hints = past.pop();
  showPalette($("palette"), []);
  listHints();
  repaint();
});
$("restore").addEventListener("change", () => { clearVersions($("strip")); repaint(); });
$("more").addEventListener("click", () => {
  clearError();
  const { model } = panels.values().next().value;
  const paint = (i) => page.paint(model, { ...settings(), hints: [], version: i }).then(({ blob }) => blob);
  const choose = (i) => { version = i; repaint(); };
  showVersions($("strip"), limits.versions, version, paint, choose).catch((error) => {
    clearVersions($("strip"));
    fail(error);
  });
});
$("reset").addEventListener("click", () => {
  const before = hints;
  reset();
  if (before.length) past.push(before);
  listHints();
});
server.onQueueChange((others) => {
  if (others === null) showPicture();
  else if (others === 0) showStatus("Colorizing…");
  else showStatus(`Waiting for ${others === 1 ? "one job" : `${others} jobs`} of other users…`);
});

chooseTool("compare");
listModels();
