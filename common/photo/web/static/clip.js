// A film: its upload, the progress of its coloring, and its download. The page shows one at a time.
import * as server from "./server.js";

const $ = (id) => document.getElementById(id);

let current = 0; // number of films chosen so far: only the latest one is shown
let id = null; // of the film on the server

export function isFilm(file, suffixes) {
  const name = file.name.toLowerCase();
  return file.type.startsWith("video/") || suffixes.some((suffix) => name.endsWith(suffix));
}

export function closeFilm() {
  current += 1;
  if (id) server.removeClip(id);
  id = null;
  $("clip").hidden = true;
}

// Send a film and follow its coloring. Throws what the server says of a film that it refuses.
export async function openFilm(file, model) {
  closeFilm();
  const number = current;
  const latest = () => number === current;
  $("clip-status").textContent = `Sending ${file.name}…`;
  $("progress").removeAttribute("value"); // the frames are not known yet
  $("progress").hidden = $("clip").hidden = false;
  $("clip-download").hidden = true;
  $("clip-remove").textContent = "Stop";
  try {
    const sent = await server.uploadClip(file, model);
    if (!latest()) return server.removeClip(sent.id);
    id = sent.id;
    while (latest()) {
      const state = await server.clip(sent.id);
      if (!latest()) return;
      if (state.error) throw new Error(state.error);
      show(state);
      if (state.complete) return;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
  } catch (error) {
    if (!latest()) return;
    closeFilm();
    throw error;
  }
}

function show({ name, before, done, total, notes, complete }) {
  const said = notes.length ? `. ${notes.join(". ")}` : "";
  if (complete) {
    $("clip-status").textContent = `${name}: ${done} frames are colored${said}`;
    $("clip-download").href = server.filmUrl(id);
    $("clip-remove").textContent = "Remove";
  } else if (before) {
    $("clip-status").textContent = `${name} waits for ${before === 1 ? "one film" : `${before} films`} of other users…`;
  } else {
    $("clip-status").textContent = total ? `${name}: frame ${done} of ${total}${said}` : `Opening ${name}…`;
  }
  if (total) Object.assign($("progress"), { max: total, value: done });
  $("progress").hidden = complete;
  $("clip-download").hidden = !complete;
}

$("clip-remove").addEventListener("click", closeFilm);
addEventListener("pagehide", closeFilm);
