// The backend of the static site: plans are files, progress is stored in the browser, answers are downloaded.
import { pictureFrom, run } from "./test.js";

const site = document.getElementById("static-site");
const { study } = site.dataset;
const plans = Number(site.dataset.plans);
const practice = Number(site.dataset.practice);
const key = `colorization-turing-${study}`;
const show = (id) => {
  for (const part of ["welcome", "stage", "end"]) document.getElementById(part).hidden = part !== id;
  scrollTo(0, 0);
};

let record = null;
let plan = null;

function read() {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function save() {
  try {
    localStorage.setItem(key, JSON.stringify(record));
  } catch {
    // storage is disabled: the session ends when the page is closed
  }
}

function random(below) {
  const drawn = new Uint32Array(1);
  const end = 2 ** 32 - (2 ** 32 % below);
  do crypto.getRandomValues(drawn);
  while (drawn[0] >= end);
  return drawn[0] % below;
}

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const session = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return { study, plan: random(plans), session, started: Date.now() / 1000, shown: null, lapsed: [], answers: [] };
}

function state() {
  const past = new Set([...record.lapsed, ...record.answers.map((a) => a.pair)]);
  const ahead = plan.pairs.filter((pair) => !past.has(pair));
  const isPractice = ahead.length > plan.pairs.length - practice;
  const of = isPractice ? plan.pairs.slice(0, practice) : plan.pairs.slice(practice);
  return {
    stage: ahead.length ? (isPractice ? "practice" : "test") : "end",
    done: of.filter((pair) => past.has(pair)).length,
    total: of.length,
    current: ahead[0] ?? null,
    next: ahead[1] ?? null,
  };
}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

const backend = {
  resume: async () => {
    plan = await (await get(`plans/${record.plan}.json`)).json();
    if (record.shown && !record.answers.some((a) => a.pair === record.shown)) record.lapsed.push(record.shown);
    record.shown = null;
    save();
    return state();
  },
  picture: async (pair) => pictureFrom(await get(`pairs/${pair}.jpg`)),
  shown: (pair) => {
    record.shown = pair;
    save();
  },
  answer: async (pair, answer) => {
    record.answers.push({ position: plan.pairs.indexOf(pair), pair, ...answer });
    save();
    const fake = plan.practice[plan.pairs.indexOf(pair)] ?? null;
    return { fake, state: state() };
  },
  finish: () => {
    const { study, plan, session, started, answers } = record;
    const text = JSON.stringify({ study, plan, session, started, answers }, null, 1);
    const link = document.getElementById("download");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `answers-${session.slice(0, 8)}.json`;
    show("end");
    link.focus();
  },
};

async function start() {
  save();
  show("stage");
  await run(backend);
}

record = read();
if (record) {
  start();
} else {
  document.getElementById("begin").addEventListener("click", () => {
    if (document.getElementById("consent").checked) {
      record = fresh();
      start();
    } else {
      document.getElementById("first").hidden = false;
      document.getElementById("consent").focus();
    }
  });
}
