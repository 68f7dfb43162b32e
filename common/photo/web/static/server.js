// Requests to the server. A request that fails throws an Error with the server's message.

async function errorOf(response) {
  const text = (await response.text().catch(() => "")).trim();
  const error = new Error(text || `the server answered ${response.status}`);
  error.status = response.status;
  return error;
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

// crypto.randomUUID is missing if the page comes over plain http from another machine.
function newTicket() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (x) => x.toString(16).padStart(2, "0")).join("");
}

const waiting = new Map(); // ticket -> number of other users' jobs before it
let notify = () => {};

// Send a request that runs as a job on the server, and poll its position in the queue until it is done.
async function job(path, options) {
  const ticket = newTicket();
  let done = false;
  const poll = async () => {
    if (done) return;
    const position = await request(`/queue/${ticket}`).then((r) => r.json()).catch(() => ({ others: 0 }));
    if (done) return;
    waiting.set(ticket, position.others ?? 0);
    notify(Math.max(...waiting.values()));
    setTimeout(poll, 700);
  };
  const timer = setTimeout(poll, 400);
  try {
    return await request(path, { ...options, headers: { ...options.headers, "x-ticket": ticket } });
  } finally {
    done = true;
    clearTimeout(timer);
    if (waiting.delete(ticket) && !waiting.size) notify(null);
  }
}

function json(body) {
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

// callback: called with the number of other users' jobs before the page's own, and with null when its jobs are done.
export function onQueueChange(callback) {
  notify = callback;
}

function sending(file, more = {}) {
  const name = encodeURIComponent(file.name || "picture");
  const headers = { "x-name": name, "content-type": "application/octet-stream", ...more };
  return { method: "POST", headers, body: file };
}

export async function upload(file) {
  return (await job("/pictures", sending(file))).json();
}

export const beforeUrl = (id) => `/pictures/${encodeURIComponent(id)}/before`;

export async function paint(id, settings) {
  const response = await job(`/pictures/${encodeURIComponent(id)}/paint`, json(settings));
  return { blob: await response.blob(), note: decodeURIComponent(response.headers.get("x-note") || "") };
}

export async function palette(id, wanted) {
  return (await (await job(`/pictures/${encodeURIComponent(id)}/palette`, json(wanted))).json()).colors;
}

export async function result(id, settings) {
  const response = await job(`/pictures/${encodeURIComponent(id)}/result`, json(settings));
  const match = /filename\*=UTF-8''(\S+)/.exec(response.headers.get("content-disposition") || "");
  return { blob: await response.blob(), name: match ? decodeURIComponent(match[1]) : "picture.color.png" };
}

export function remove(id) {
  fetch(`/pictures/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

// Films

const clipUrl = (id) => `/clips/${encodeURIComponent(id)}`;

export const filmUrl = (id) => `${clipUrl(id)}/film`;

export async function uploadClip(file, model) {
  return (await request("/clips", sending(file, { "x-model": encodeURIComponent(model) }))).json();
}

export async function clip(id) {
  return (await request(clipUrl(id))).json();
}

export function removeClip(id) {
  fetch(clipUrl(id), { method: "DELETE", keepalive: true }).catch(() => {});
}
