// The backend of pages that the study's server delivers.
import { pictureFrom, run } from "./test.js";

async function call(path, options) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  if (!response.ok) {
    const error = new Error(`${path}: ${response.status}`);
    error.final = response.status >= 400 && response.status < 500;
    throw error;
  }
  return response;
}

function post(path, body, keepalive = false) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, keepalive };
  return call(path, { ...options, body: JSON.stringify(body) });
}

run({
  resume: async () => (await post("/resume", {})).json(),
  picture: async (pair) => pictureFrom(await call(`/pair/${encodeURIComponent(pair)}`)),
  shown: (pair) => post("/shown", { pair }, true).catch(() => {}),
  answer: async (pair, answer) => (await post("/answer", { pair, ...answer }, true)).json(),
  finish: () => location.replace("/result"),
});
