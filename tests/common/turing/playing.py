"""Playing a session in a browser as a person does."""

from __future__ import annotations

from common.turing.pictures import DISPLAY_SIZE

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}

# Frames of 1/60 s that do not depend on the load of the machine, and a log of when the pictures are displayed.
WATCH = """
let frameTime = performance.now();
let callbacks = [];
window.requestAnimationFrame = (callback) => callbacks.push(callback);
(function tick() {
  const due = callbacks;
  callbacks = [];
  frameTime += 1000 / 60;
  due.forEach((callback) => callback(frameTime));
  setTimeout(tick, 17);
})();
addEventListener("DOMContentLoaded", () => {
  const pair = document.getElementById("pair");
  if (!pair) return;
  window.seen = [];
  new MutationObserver(() => {
    const showing = pair.classList.contains("showing");
    const last = window.seen[window.seen.length - 1];
    if (showing && !(last && last.end === null)) {
      const canvases = [...pair.querySelectorAll("canvas")];
      const blank = canvases.filter((c) => !c.getContext("2d").getImageData(0, 0, 256, 256).data.some((x) => x)).length;
      const boxes = canvases.map((c) => c.getBoundingClientRect());
      window.seen.push({
        start: performance.now(), end: null, blank,
        visible: canvases.map((c) => getComputedStyle(c).visibility),
        sizes: boxes.flatMap((b) => [b.width, b.height]),
        inside: boxes.every((b) => b.left >= 0 && b.top >= 0 && b.right <= innerWidth && b.bottom <= innerHeight),
      });
    } else if (!showing && last && last.end === null) last.end = performance.now();
  }).observe(pair, { attributes: true, attributeFilter: ["class"] });
});
"""


def until_asked(page) -> None:
    """Wait until the page asks about a pair, shows a button, or the session is over."""
    page.wait_for_function(
        """() => document.querySelector("#pair.asking") || document.querySelector("#next:not([hidden])")
            || document.querySelector(".big, #end:not([hidden])")"""
    )


def play(page, pairs: int, *, touch: bool, look=None) -> None:
    """Answer so many pairs: with arrow keys, or by tapping where the picture was. look: called at each stop."""
    answered = 0
    while answered < pairs:
        until_asked(page)
        asking = page.locator("#pair.asking").count() > 0
        if look:
            look("asking" if asking else "stop", answered)
        if not asking:
            button = page.locator("#next")
            label = button.inner_text()
            button.tap() if touch else page.keyboard.press("Enter")
            page.wait_for_function(
                """(label) => ((b) => b.hidden || b.textContent !== label)(document.querySelector("#next"))""",
                arg=label,
            )
            continue
        if touch:
            page.locator("#left" if answered % 3 else "#right").tap()
        else:
            page.keyboard.press("ArrowLeft" if answered % 3 else "ArrowRight")
        answered += 1
        page.wait_for_function(
            """() => !document.querySelector("#pair.asking") && (document.querySelector("#pair.waiting")
                || document.querySelector("#next:not([hidden])") || document.querySelector(".big")
                || document.querySelector("#end:not([hidden])"))"""
        )


def check_shows(shows: list[dict], layout: str) -> None:
    """Two whole pictures of the right size were displayed at once, for at least about one second."""
    assert shows
    for show in shows:
        assert show["blank"] == 0
        assert show["visible"] == ["visible", "visible"]
        assert show["sizes"] == [DISPLAY_SIZE] * 4
        assert show["inside"], f"a picture is not wholly on the screen ({layout})"
        assert show["end"] - show["start"] >= 900
