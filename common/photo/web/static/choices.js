// What the model offers to choose from: versions of the whole picture, and likely colors of a place.

// Show a button with a small picture for each version. paint(version): promise of a preview's blob.
// choose(version): called when one is clicked.
export async function showVersions(strip, count, current, paint, choose) {
  clearVersions(strip);
  const buttons = Array.from({ length: count }, (_, i) => {
    const button = document.createElement("button");
    const image = new Image();
    Object.assign(button, { type: "button", className: "version" });
    button.setAttribute("aria-label", `Version ${i + 1}`);
    button.setAttribute("aria-pressed", String(i === current));
    button.append(image);
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      choose(i);
    });
    return button;
  });
  strip.replaceChildren(...buttons);
  strip.hidden = false;
  for (const [i, button] of buttons.entries()) {
    const blob = await paint(i);
    if (!button.isConnected) return;
    button.firstElementChild.src = URL.createObjectURL(blob);
  }
}

export function clearVersions(strip) {
  for (const image of strip.querySelectorAll("img[src]")) URL.revokeObjectURL(image.src);
  strip.replaceChildren();
  strip.hidden = true;
}

// colors: [{ color, share }]. choose(color): called when one is clicked.
export function showPalette(palette, colors, choose) {
  palette.replaceChildren(...colors.map(({ color, share }) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "swatch" });
    button.style.background = color;
    button.title = `${Math.round(100 * share)} % likely`;
    button.setAttribute("aria-label", `Color ${color}, ${Math.round(100 * share)} % likely`);
    button.addEventListener("click", () => choose(color));
    return button;
  }));
  palette.hidden = !colors.length;
}
