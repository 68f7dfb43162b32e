// What the page asks of its server. Every refusal becomes an Error whose message is the server's sentence.

async function refusal(response) {
  const text = (await response.text().catch(() => "")).trim();
  const error = new Error(text || `the server answered ${response.status}`);
  error.status = response.status;
  return error;
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

// crypto.randomUUID would be missing where the page comes over plain http from another machine.
function newTicket() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (x) => x.toString(16).padStart(2, "0")).join("");
}

const places = new Map(); // ticket -> how many pieces of other people's work are before it
let onPlaces = () => {};

// A job may have to wait for others: while it does, its place in the queue is asked for now and then.
async function job(path, options) {
  const ticket = newTicket();
  let ended = false;
  const watch = async () => {
    if (ended) return;
    const found = await ask(`/queue/${ticket}`).then((r) => r.json()).catch(() => ({ others: 0 }));
    if (ended) return;
    places.set(ticket, found.others ?? 0);
    onPlaces(Math.max(...places.values()));
    setTimeout(watch, 700);
  };
  const timer = setTimeout(watch, 400);
  try {
    return await ask(path, { ...options, headers: { ...options.headers, "x-ticket": ticket } });
  } finally {
    ended = true;
    clearTimeout(timer);
    if (places.delete(ticket) && !places.size) onPlaces(null);
  }
}

function json(body) {
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

// told: called with how many pieces of other people's work are before one's own, and with null at its end.
export function tellPlaces(told) {
  onPlaces = told;
}

export async function upload(file) {
  const headers = { "x-name": encodeURIComponent(file.name || "picture"), "content-type": "application/octet-stream" };
  return (await job("/pictures", { method: "POST", headers, body: file })).json();
}

export const beforeUrl = (id) => `/pictures/${encodeURIComponent(id)}/before`;

export async function paint(id, settings) {
  const response = await job(`/pictures/${encodeURIComponent(id)}/paint`, json(settings));
  return { blob: await response.blob(), note: decodeURIComponent(response.headers.get("x-note") || "") };
}

export async function result(id, settings) {
  const response = await job(`/pictures/${encodeURIComponent(id)}/result`, json(settings));
  const named = /filename\*=UTF-8''(\S+)/.exec(response.headers.get("content-disposition") || "");
  return { blob: await response.blob(), name: named ? decodeURIComponent(named[1]) : "picture.color.png" };
}

export function forget(id) {
  fetch(`/pictures/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true }).catch(() => {});
}
