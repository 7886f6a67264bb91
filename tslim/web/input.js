// Mouse, touch and keys to what they do. Keys are those of the preview's window where both have the feature.

const ZOOM_DRAG = 3; // halvings of the distance for a drag over the picture's height
const ZOOM_KEY = 1.5; // halvings a second
const FLY = { w: [0, 0, 1], s: [0, 0, -1], a: [-1, 0, 0], d: [1, 0, 0], " ": [0, 1, 0], c: [0, -1, 0] };

/** Moves `viewer.camera` by what is done to its canvas; `moved()` is called after each movement. */
class Gestures {
  constructor(viewer, moved) {
    this.viewer = viewer;
    this.moved = moved;
    this.pointers = new Map();
    this.held = new Set();
    this.flying = 0;
    const canvas = viewer.canvas;
    this.stop = new AbortController();
    const on = (target, name, action, more) =>
      target.addEventListener(name, action, { signal: this.stop.signal, ...more });
    on(canvas, "pointerdown", (event) => this.down(event));
    on(canvas, "pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) on(canvas, name, (event) => this.up(event));
    on(canvas, "wheel", (event) => this.wheel(event), { passive: false });
    on(canvas, "contextmenu", (event) => event.preventDefault());
    on(window, "keyup", (event) => this.held.delete(event.key.toLowerCase()));
    on(window, "blur", () => this.held.clear());
  }

  down(event) {
    this.viewer.canvas.setPointerCapture(event.pointerId);
    this.viewer.canvas.classList.add("dragged");
    this.viewer.canvas.focus({ preventScroll: true });
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    event.preventDefault();
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.viewer.canvas.classList.remove("dragged");
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const height = Math.min(this.viewer.canvas.clientHeight, this.viewer.canvas.clientWidth);
    const now = [event.clientX, event.clientY];
    const [dx, dy] = [(now[0] - before[0]) / height, (now[1] - before[1]) / height];
    const camera = this.viewer.camera;
    if (this.pointers.size === 2) {
      this.pinch(event.pointerId, before, now, [dx / 2, dy / 2]);
    } else if (event.ctrlKey) {
      camera.zoom(-ZOOM_DRAG * dy);
    } else if (event.shiftKey || event.buttons & 6) {
      camera.pan(dx, dy);
    } else {
      camera.orbit(dx, dy);
    }
    this.pointers.set(event.pointerId, now);
    this.moved();
  }

  /** One of two fingers has moved: the scene follows their middle, and their distance zooms. */
  pinch(id, before, now, [dx, dy]) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const apart = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
    this.viewer.camera.zoom(Math.log2(apart(now) / apart(before)));
    this.viewer.camera.pan(dx, dy);
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 0 ? event.deltaY / 100 : event.deltaY / 3;
    this.viewer.camera.zoom(-0.25 * clamp(lines, -4, 4));
    this.moved();
  }

  /** A key that is held moves the camera until it is let go; whether it is such a key. */
  hold(key) {
    if (!(key in FLY) && key !== "arrowup" && key !== "arrowdown") return false;
    this.held.add(key);
    if (!this.flying) this.flying = requestAnimationFrame((now) => this.fly(now, now));
    return true;
  }

  fly(now, before) {
    this.flying = 0;
    if (!this.held.size || this.stop.signal.aborted) return;
    const seconds = Math.min((now - before) / 1000, 0.1);
    const camera = this.viewer.camera;
    for (const key of this.held) {
      if (key in FLY) camera.fly(...FLY[key], seconds);
      else camera.zoom((key === "arrowup" ? 1 : -1) * ZOOM_KEY * seconds);
    }
    this.moved();
    this.flying = requestAnimationFrame((next) => this.fly(next, now));
  }

  dispose() {
    this.stop.abort();
  }
}
