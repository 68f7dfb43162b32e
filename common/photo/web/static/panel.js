// One model's view of the picture: before and after, a divider and the hints' dots. All views share the position of the
// divider, the CSS property --at of their container.

const STEP = 2; // percent that an arrow key moves the divider by

export function setDivider(views, percent) {
  const at = Math.min(100, Math.max(0, percent));
  views.style.setProperty("--at", `${at}%`);
  for (const divider of views.querySelectorAll(".divider")) {
    divider.setAttribute("aria-valuenow", String(Math.round(at)));
    divider.setAttribute("aria-valuetext", `${Math.round(at)} % before`);
  }
}

function pointIn(event, view) {
  const box = view.getBoundingClientRect();
  const share = (value, from, size) => Math.min(1, Math.max(0, (value - from) / size));
  return { x: share(event.clientX, box.left, box.width), y: share(event.clientY, box.top, box.height) };
}

// Call `move` for each movement of a pointer until it is lifted.
function follow(element, event, move) {
  element.setPointerCapture(event.pointerId);
  const onMove = (moved) => moved.pointerId === event.pointerId && move(moved);
  const end = (ended) => {
    if (ended.pointerId !== event.pointerId) return;
    element.removeEventListener("pointermove", onMove);
    element.removeEventListener("pointerup", end);
    element.removeEventListener("pointercancel", end);
  };
  element.addEventListener("pointermove", onMove);
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
}

export class Panel {
  // page: { views, hinting(), addHint(point), moveHint(i, point), nudgeHint(i, x, y, times), removeHint(i), remember(),
  // paint(model, settings), download(panel), fail(error), addNote(text) }; a point is { x, y }, fractions of the view
  constructor(model, page) {
    this.model = model;
    this.page = page;
    this.element = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.view = this.element.querySelector(".view");
    this.after = this.element.querySelector(".after");
    this.before = this.element.querySelector(".before");
    this.dots = this.element.querySelector(".dots");
    this.button = this.element.querySelector(".download");
    this.element.querySelector(".name").textContent = model;
    this.button.setAttribute("aria-label", `Download the picture colored by ${model}`);
    this.button.addEventListener("click", () => page.download(this));
    this.pending = null;
    this.busy = false;
    this.listen();
  }

  listen() {
    const divider = this.element.querySelector(".divider");
    const slide = (event) => setDivider(this.page.views, 100 * pointIn(event, this.view).x);
    divider.addEventListener("keydown", (event) => {
      const now = Number(divider.getAttribute("aria-valuenow"));
      const to = {
        ArrowLeft: now - STEP, ArrowDown: now - STEP, ArrowRight: now + STEP, ArrowUp: now + STEP,
        PageDown: now - 5 * STEP, PageUp: now + 5 * STEP, Home: 0, End: 100,
      }[event.key];
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      setDivider(this.page.views, to);
    });
    this.view.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".dot")) return;
      if (event.target === divider || !this.page.hinting()) {
        if (event.target !== divider) slide(event);
        follow(this.view, event, slide);
      }
    });
    this.view.addEventListener("click", (event) => {
      if (this.page.hinting() && event.target !== divider && !event.target.closest(".dot")) {
        this.page.addHint(pointIn(event, this.view));
      }
    });
  }

  show(picture, beforeUrl) {
    this.view.style.setProperty("--ratio", String(picture.preview_width / picture.preview_height));
    this.view.style.setProperty("--width", `${4 * picture.preview_width}px`);
    this.view.classList.add("waiting");
    this.before.alt = `${picture.name} before`;
    this.after.alt = `${picture.name} colored by ${this.model}`;
    this.before.src = beforeUrl;
  }

  // Request a preview with new settings. While a request is running, only the newest settings wait for the next one.
  async update(settings) {
    this.pending = settings;
    if (this.busy) return;
    this.busy = true;
    this.element.setAttribute("aria-busy", "true");
    try {
      while (this.pending) {
        const settings = this.pending;
        this.pending = null;
        const { blob, note } = await this.page.paint(this.model, settings);
        if (this.element.isConnected) await this.showPreview(blob);
        if (note) this.page.addNote(`${this.model}: ${note}`);
      }
    } catch (error) {
      this.pending = null;
      this.page.fail(error);
    } finally {
      this.busy = false;
      this.element.setAttribute("aria-busy", "false");
    }
  }

  // Decode a preview before it replaces the previous one, so that nothing flickers.
  async showPreview(blob) {
    const next = new Image();
    next.src = URL.createObjectURL(blob);
    await next.decode();
    const old = this.after.src;
    this.after.src = next.src;
    this.after.dataset.painted = String(1 + Number(this.after.dataset.painted || 0));
    this.view.classList.remove("waiting");
    if (old) URL.revokeObjectURL(old);
  }

  close() {
    this.element.remove();
    if (this.after.src) URL.revokeObjectURL(this.after.src);
  }

  drawDots(hints, picture) {
    while (this.dots.children.length > hints.length) this.dots.lastElementChild.remove();
    while (this.dots.children.length < hints.length) this.dots.append(this.newDot(this.dots.children.length));
    hints.forEach((hint, i) => {
      const dot = this.dots.children[i];
      dot.style.left = `${(100 * (hint.x + 0.5)) / picture.width}%`;
      dot.style.top = `${(100 * (hint.y + 0.5)) / picture.height}%`;
      dot.style.background = hint.color;
      dot.setAttribute("aria-label", `Hint ${i + 1}: arrow keys move it, Delete removes it`);
    });
  }

  newDot(i) {
    const dot = document.createElement("button");
    dot.type = "button";
    dot.className = "dot";
    dot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.page.remember();
      follow(dot, event, (moved) => this.page.moveHint(i, pointIn(moved, this.view)));
    });
    dot.addEventListener("keydown", (event) => {
      const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [];
      if (event.key === "Delete" || event.key === "Backspace") {
        event.preventDefault();
        this.page.removeHint(i);
      } else if (x !== undefined) {
        event.preventDefault();
        this.page.nudgeHint(i, x, y, event.shiftKey ? 10 : 1);
      }
    });
    return dot;
  }
}
