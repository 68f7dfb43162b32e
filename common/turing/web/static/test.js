// One session: displays each pair for one second of the frame clock, asks, and sends the answer. A backend (server.js,
// static_site.js) loads the pairs and stores the answers.

export const EXPOSURE_MS = 1000;
const PAUSE_MS = 600; // the cross, before a pair

const $ = (id) => document.getElementById(id);
const frame = () => new Promise(requestAnimationFrame);
const sides = { left: $("left"), right: $("right") };
const nextButton = $("next");

function clicked(button) {
  return new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
}

async function pressNext(label) {
  nextButton.textContent = label;
  nextButton.hidden = false;
  nextButton.focus({ preventScroll: true });
  nextButton.scrollIntoView({ block: "nearest" });
  await clicked(nextButton);
  nextButton.hidden = true;
  scrollTo(0, 0);
}

function setStatus(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function stacked() {
  return getComputedStyle($("pair")).flexDirection === "column";
}

function layout() {
  if ($("left").getBoundingClientRect().width < 255.5) return "small";
  return stacked() ? "column" : "row";
}

function label() {
  const names = stacked() ? { left: "Upper", right: "Lower" } : { left: "Left", right: "Right" };
  for (const side of ["left", "right"]) {
    sides[side].querySelector(".label").textContent = names[side];
    sides[side].setAttribute("aria-label", `${names[side]} picture`);
  }
  return names;
}

// Decodes the image and draws its halves into the hidden canvases, so that displaying them is one change of style.
async function draw(image) {
  await image.decode();
  const half = image.naturalWidth / 2;
  for (const [i, side] of ["left", "right"].entries()) {
    const canvas = sides[side].querySelector("canvas");
    canvas.getContext("2d").drawImage(image, i * half, 0, half, half, 0, 0, canvas.width, canvas.height);
  }
}

function clear() {
  for (const side of ["left", "right"]) {
    const canvas = sides[side].querySelector("canvas");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }
}

async function visible() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

async function pause(milliseconds) {
  const start = await frame();
  while ((await frame()) - start < milliseconds);
}

// Both pictures appear in the frame that begins at `start` and disappear in the frame that begins at `now`. Both are
// times of the frame clock, so their difference is the display time. The last frame is the one nearest to a second.
async function expose(onShow) {
  let last = await frame();
  const start = await frame();
  $("pair").classList.add("showing");
  onShow();
  let step = start - last;
  let now = start;
  while (EXPOSURE_MS - (now - start) > step / 2) {
    last = now;
    now = await frame();
    step = now - last;
  }
  $("pair").classList.remove("showing");
  return { exposure: now - start, gone: now };
}

// Waits for an arrow key, a click or a tap, once the pictures have disappeared.
function ask(gone) {
  return new Promise((resolve) => {
    const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "left", ArrowDown: "right" };
    const done = (choice, time) => {
      document.removeEventListener("keydown", onKey);
      for (const side of ["left", "right"]) {
        sides[side].onclick = null;
        sides[side].disabled = true;
      }
      $("pair").classList.remove("asking");
      resolve({ choice, response: Math.max(0, time - gone) });
    };
    const onKey = (event) => {
      const upright = event.key === "ArrowUp" || event.key === "ArrowDown";
      if (event.repeat || !(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey) return;
      if (upright && !stacked()) return;
      event.preventDefault();
      done(keys[event.key], event.timeStamp);
    };
    for (const side of ["left", "right"]) {
      sides[side].disabled = false;
      sides[side].onclick = (event) => done(side, event.timeStamp);
    }
    $("pair").classList.add("asking");
    document.addEventListener("keydown", onKey);
  });
}

function progress(state) {
  const name = state.stage === "practice" ? "Practice" : "Test";
  $("where").textContent = `${name}: pair ${Math.min(state.done + 1, state.total)} of ${state.total}`;
  $("progress").max = state.total;
  $("progress").value = state.done;
}

// Repeats an action until the server responds, so that an answer is not lost when the network is.
async function retry(action) {
  for (;;) {
    try {
      const result = await action();
      setStatus("");
      return result;
    } catch (error) {
      if (error.final) throw error;
      setStatus("The connection was lost. Your answer is not lost: it will be sent when you try again.", "wrong");
      await pressNext("Try again");
    }
  }
}

async function runSession(backend) {
  let state = await retry(() => backend.resume());
  const images = new Map();
  const fetched = (pair) => {
    if (!images.has(pair)) images.set(pair, backend.picture(pair));
    return images.get(pair);
  };
  const again = (pair) => retry(() => fetched(pair).catch((error) => { images.delete(pair); throw error; }));
  let stage = null;
  let feedback = false;
  while (state.stage !== "end") {
    progress(state);
    const names = label();
    if (state.stage !== stage) {
      const fresh = state.done === 0;
      if (state.stage === "test" && fresh) {
        setStatus("Practice is over. Now the test begins, without feedback.");
      } else if (!fresh) {
        setStatus("Welcome back. The test continues where you left it.");
      }
      const first = state.stage === "practice" && fresh ? "Show the first pair" : fresh ? "Begin the test" : "Continue";
      await pressNext(first);
      stage = state.stage;
    } else if (feedback) {
      await pressNext("Next pair");
    }
    setStatus("");
    $("pair").classList.add("waiting");
    const pair = state.current;
    await draw(await again(pair));
    await visible();
    await pause(PAUSE_MS);
    await visible();
    $("pair").classList.remove("waiting");
    const shown = await expose(() => backend.shown(pair));
    images.delete(pair);
    clear();
    const following = state.next;
    if (following) fetched(following).catch(() => images.delete(following));
    const stood = layout();
    if (state.stage === "practice") setStatus("Which picture did the computer color? Press an arrow key, or click or tap where it was.");
    const answer = await ask(shown.gone);
    const outcome = await retry(() =>
      backend.answer(pair, {
        choice: answer.choice, exposure_ms: shown.exposure, response_ms: answer.response, layout: stood,
      }),
    );
    feedback = Boolean(outcome.fake);
    if (feedback) {
      const right = outcome.fake === answer.choice;
      setStatus(`${right ? "Right" : "Wrong"}: the ${names[outcome.fake].toLowerCase()} picture was colored by the computer.`,
        right ? "right" : "wrong");
    }
    const before = state;
    state = outcome.state;
    if (feedback && state.stage !== "practice") {
      progress({ ...before, done: before.total });
      await pressNext("Continue");
      feedback = false;
    }
  }
  backend.finish();
}

// If the server refuses a pair (a second tab, an answer sent twice), the page is reloaded to get the current state.
export async function run(backend) {
  addEventListener("resize", label);
  try {
    await runSession(backend);
  } catch (error) {
    if (!error.final) throw error;
    setStatus("This page is out of date, perhaps because the test is open in another tab.", "wrong");
    await pressNext("Reload");
    location.reload();
  }
}

export async function pictureFrom(response) {
  const url = URL.createObjectURL(await response.blob());
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } finally {
    URL.revokeObjectURL(url);
  }
  return image;
}
