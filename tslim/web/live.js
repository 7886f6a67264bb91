// Shows the pictures and the panel that a preview sends, and reports what the user does, as the window's process would
// (tslim/preview/window.py has the messages). One request stays open for what comes, one at a time goes with reports.

const BASE = location.pathname.replace(/\/?$/, "/");
const KEY_NAMES = { ArrowLeft: "Left", ArrowRight: "Right", ArrowUp: "Up", ArrowDown: "Down", Shift: "Shift", Control: "Control" };
const BUTTON_NAMES = [["LMB", 1], ["RMB", 2], ["MMB", 4]];
const AGAIN_MS = [500, 10_000]; // from the first try to those after long
const REPORT_MS = 25;
const HELD_MS = 40; // between two reports while a key is held
const byId = (id) => document.getElementById(id);

// -- what comes -------------------------------------------------------------------------------------------------------

/** Messages of a stream: one byte for the kind, the length of what follows, and that. */
async function* messages(stream) {
  const reader = stream.getReader();
  let held = new Uint8Array(0);
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held);
    joined.set(value, held.length);
    held = joined;
    while (held.length >= 5) {
      const length = new DataView(held.buffer, held.byteOffset).getUint32(1);
      if (held.length < 5 + length) break;
      yield { kind: String.fromCharCode(held[0]), payload: held.slice(5, 5 + length) };
      held = held.slice(5 + length);
    }
  }
}

class Live {
  constructor() {
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d");
    this.panel = new Panel(byId("panel"), (name, value) => this.report({ panel: { [name]: value } }));
    this.buttons = [];
    this.held = new Set();
    this.cursor = [0, 0];
    this.waiting = [];
    this.sending = false;
    this.pinched = null;
    this.pointers = new Map();
    this.heldSince = 0;
    this.connect();
  }

  /** Follows the preview, and comes back to it when the connection breaks, until it ends. */
  async follow() {
    for (let wait = AGAIN_MS[0]; ; wait = Math.min(2 * wait, AGAIN_MS[1])) {
      try {
        const response = await fetch(`${BASE}stream`);
        if (!response.ok) throw new Error(await response.text());
        wait = AGAIN_MS[0];
        this.resized();
        for await (const { kind, payload } of messages(response.body)) {
          if (kind === "E") {
            this.say(`the preview has ended ${new TextDecoder().decode(payload)}`);
            return;
          }
          if (kind === "P") await this.show(payload);
          if (kind === "L") this.panel.update(JSON.parse(new TextDecoder().decode(payload)));
        }
      } catch {
        // Said below.
      }
      this.say("the connection is lost: trying again");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  async show(jpeg) {
    const picture = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.context.drawImage(picture, 0, 0);
    picture.close();
    this.say("");
  }

  say(text) {
    byId("state").textContent = text;
    byId("state").hidden = !text;
  }

  // -- what goes ------------------------------------------------------------------------------------------------------

  /** Queues a report of how things are, and what was done besides. Movements that follow each other become one. */
  report(done = {}) {
    const now = {
      size: [Math.round(this.canvas.clientWidth), Math.round(this.canvas.clientHeight)],
      cursor: this.cursor, buttons: [...this.buttons], held: [...this.held], pressed: [], panel: {}, dt: 0, zoom: 0,
      ...done,
    };
    const last = this.waiting[this.waiting.length - 1];
    const plain = !now.pressed.length && !Object.keys(now.panel).length;
    const same = last && last.buttons.join() === now.buttons.join() && last.held.join() === now.held.join();
    if (plain && same) {
      Object.assign(last, { size: now.size, cursor: now.cursor, dt: Math.min(last.dt + now.dt, 1), zoom: last.zoom + now.zoom });
    } else {
      this.waiting.push(now);
    }
    this.send();
  }

  async send() {
    if (this.sending || !this.waiting.length) return;
    this.sending = true;
    const body = JSON.stringify(this.waiting.splice(0, 64));
    try {
      await fetch(`${BASE}input`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    } catch {
      // The stream says that the connection is lost.
    }
    await new Promise((resolve) => setTimeout(resolve, REPORT_MS));
    this.sending = false;
    this.send();
  }

  resized() {
    this.report();
  }

  // -- mouse, touch, keys ---------------------------------------------------------------------------------------------

  connect() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      canvas.classList.add("dragged");
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.pointed(event);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => this.pointed(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        this.pointers.delete(event.pointerId);
        canvas.classList.toggle("dragged", this.pointers.size > 0);
        this.pointed(event);
      });
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const notches = event.deltaMode === 0 ? event.deltaY / 100 : event.deltaY / 3;
      this.report({ zoom: -0.25 * Math.max(-4, Math.min(4, notches)) });
    }, { passive: false });
    window.addEventListener("keydown", (event) => this.keyed(event, true));
    window.addEventListener("keyup", (event) => this.keyed(event, false));
    window.addEventListener("blur", () => {
      this.held.clear();
      this.report();
    });
    new ResizeObserver(() => this.resized()).observe(canvas);
  }

  /** A pointer has moved, come or gone: the preview sees one mouse; of two fingers, their middle with the right button. */
  pointed(event) {
    const box = this.canvas.getBoundingClientRect();
    const before = this.pointers.size;
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const points = [...this.pointers.values()];
    let zoom = 0;
    let at = [event.clientX, event.clientY];
    if (before === 2) {
      at = [(points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2];
      const apart = Math.max(Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]), 1);
      zoom = this.pinched ? Math.log2(apart / this.pinched) : 0;
      this.pinched = apart;
    } else {
      this.pinched = null;
    }
    const buttons = before === 0 ? [] : before === 2 ? ["RMB"]
      : BUTTON_NAMES.filter(([, bit]) => event.buttons & bit).map(([name]) => name);
    // A finger more or less moves the cursor, which is no drag.
    if (buttons.join() !== this.buttons.join() && this.buttons.length) {
      this.buttons = [];
      this.report();
    }
    this.buttons = buttons;
    const inside = (v) => Math.min(Math.max(v, 0), 1);
    this.cursor = [inside((at[0] - box.left) / box.width), inside((at[1] - box.top) / box.height)];
    if (buttons.length || zoom || event.type !== "pointermove") this.report({ zoom });
  }

  keyed(event, down) {
    const name = KEY_NAMES[event.key] ?? (/^[a-z ]$/i.test(event.key) ? event.key.toLowerCase() : null);
    const tag = event.target.tagName;
    if (name === null || event.metaKey || event.altKey || (event.ctrlKey && name.length === 1)) return;
    if (tag === "INPUT" && (event.key.startsWith("Arrow") || name === " ")) return;
    if (tag === "BUTTON" && name === " ") return;
    if (down && event.repeat) {
      event.preventDefault();
      return;
    }
    if (down) {
      event.preventDefault();
      this.held.add(name);
      this.report({ pressed: [name] });
      if (!this.heldSince) this.repeat(performance.now());
    } else {
      this.held.delete(name);
      this.report();
    }
  }

  /** While keys are held, their time goes on. */
  repeat(before) {
    this.heldSince = before;
    setTimeout(() => {
      const now = performance.now();
      this.heldSince = 0;
      if (!this.held.size) return;
      this.report({ dt: Math.min((now - before) / 1000, 0.1) });
      this.repeat(now);
    }, HELD_MS);
  }
}

// -- the panel --------------------------------------------------------------------------------------------------------

/** Rows of the preview's panel as widgets; those that stay keep their elements, so that a slider can be dragged. */
class Panel {
  constructor(element, chosen) {
    this.element = element;
    this.chosen = chosen;
    this.shape = "";
    this.rows = [];
  }

  update(rows) {
    const shape = JSON.stringify(rows.map(([kind, name]) => (kind === "text" ? kind : [kind, name])));
    if (shape !== this.shape) {
      this.shape = shape;
      this.rows = rows.map((row) => this.made(row));
      this.element.replaceChildren(...this.rows.map(({ element }) => element));
    }
    let lastWidget = rows.length;
    while (lastWidget && rows[lastWidget - 1][0] === "text") --lastWidget;
    rows.forEach((row, i) => {
      this.rows[i].update(row);
      if (row[0] === "text") this.rows[i].element.classList.toggle("help", i >= lastWidget);
    });
  }

  made([kind, name]) {
    const element = document.createElement({ text: "p", button: "button", check: "label", slider: "label" }[kind]);
    if (kind === "text") return { element, update: ([, text]) => (element.textContent = text) };
    if (kind === "button") {
      element.addEventListener("click", () => this.chosen(name, true));
      return {
        element,
        update: ([, , label]) => {
          element.textContent = label.replace(/^\[(.*)\]$/, "$1");
          element.setAttribute("aria-pressed", String(/^\[.*\]$/.test(label)));
        },
      };
    }
    element.className = kind;
    const input = Object.assign(document.createElement("input"), { type: kind === "check" ? "checkbox" : "range", name });
    const text = document.createElement("span");
    if (kind === "check") {
      element.append(input, text);
      input.addEventListener("change", () => this.chosen(name, input.checked));
      return {
        element,
        update: ([, , label, value]) => {
          text.textContent = label;
          input.checked = value;
        },
      };
    }
    const output = document.createElement("output");
    element.append(text, output, input);
    let touched = -Infinity;
    input.addEventListener("input", () => {
      touched = performance.now();
      output.textContent = input.value;
      this.chosen(name, Number(input.value));
    });
    return {
      element,
      update: ([, , label, value, low, high]) => {
        text.textContent = label;
        Object.assign(input, { min: low, max: high, step: 1 });
        input.style.setProperty("--arrived", "0%");
        // What the user has just chosen stays until the preview has heard of it.
        if (performance.now() - touched < 400) return;
        input.value = value;
        output.textContent = value;
      },
    };
  }
}

const live = new Live();
window.live = live;
live.follow();
