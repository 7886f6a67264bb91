// The page: reads its model as it arrives, shows it, and connects widgets, keys and address to the viewer.

const about = JSON.parse(document.getElementById("about").textContent);
const query = new URLSearchParams(location.search);
const byId = (id) => document.getElementById(id);
const DARK = matchMedia("(prefers-color-scheme: dark)");
const SECONDS_ON_PATH = 24;

class Page {
  constructor() {
    this.canvas = byId("canvas");
    this.viewer = null;
    this.sizes = [];
    this.psnr = {};
    this.cameraIndex = -1;
    this.backdrop = 0;
    this.playing = 0;
    this.gestures = null;
    this.connect();
  }

  // -- reading --------------------------------------------------------------------------------------------------------

  async open() {
    const gl = this.canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "high-performance" });
    if (!gl) throw new ModelError("this browser has no WebGL 2, which the page needs to draw");
    this.gl = gl;
    const source = about.model ? fetchedBytes(about.model) : embeddedBytes();
    for await (const part of readModelAside(source, byId("reading").textContent)) {
      if (gl.isContextLost()) return;
      if (part.header) this.begin(part);
      else if (part.block) this.take(part);
      else this.say(part.warning);
      if (this.ranks === this.wanted) break; // a device that has no room for more is not sent more
    }
    if (this.ranks < Math.min(about.ranks, this.wanted) && byId("message").hidden) {
      this.say(`only ${this.ranks} of ${about.ranks} ranks have arrived`);
    }
    this.complete = true;
    this.update();
  }

  /** As many ranks as the device's memory has room for: what is not known about it is guessed with care. */
  ranksThatFit(header) {
    const phone = matchMedia("(pointer: coarse)").matches || (navigator.deviceMemory ?? 8) <= 4;
    const mb = Number(query.get("memory")) || (phone ? 256 : 1536);
    let ranks = about.ranks;
    while (ranks > 1 && deviceBytes(header, ranks) > 1e6 * mb) --ranks;
    this.wanted = ranks;
  }

  begin(part) {
    this.ranksThatFit(part.header);
    this.table(part);
    const field = new DeviceField(this.gl, part, this.wanted);
    const camera = new OrbitCamera(about.cameras[0], about.view);
    const viewer = new Viewer(this.canvas, field, camera, Number(query.get("budget")) || 33);
    this.viewer = viewer;
    viewer.onShown = (shown) => this.shown(shown);
    this.gestures = new Gestures(viewer, () => this.moved());
    this.resized();
    if (query.get("rank")) this.setRank(Number(query.get("rank")));
    if (CHANNELS.includes(query.get("channel"))) this.setChannel(query.get("channel"));
    this.setBackdrop(0);
    const index = Number(query.get("camera")) - 1;
    this.showCamera(about.cameras[index] ? index : 0);
    if (this.wanted < about.ranks) this.say(`this device has room for ${this.wanted} of ${about.ranks} ranks`);
  }

  /** Sizes and qualities of the ranks, as far as the file itself says them. */
  table({ header, bytes }) {
    const { blocks, psnr } = header.table ?? { blocks: [], psnr: [] };
    blocks.reduce((end, size, i) => (this.sizes[i] = end + size), bytes);
    psnr.forEach((value, i) => value !== null && (this.psnr[i + 1] = value));
  }

  take({ rank, block, bytes }) {
    this.viewer.field.add(block);
    this.sizes[rank - 1] = bytes;
    byId("rank").disabled = false;
    this.viewer.changed(true);
    this.update();
  }

  get ranks() {
    return this.viewer?.ranks ?? 0;
  }

  // -- what is shown in words -----------------------------------------------------------------------------------------

  say(text) {
    byId("message").textContent = text[0].toUpperCase() + text.slice(1) + (text.endsWith("?") ? "" : ".");
    byId("message").hidden = false;
  }

  shown(shown) {
    this.canvas.classList.add("drawn");
    this.last = shown;
    this.update();
  }

  update() {
    const automatic = this.viewer?.rank === null && this.last && !this.last.fine;
    const rank = automatic ? this.last.rank : (this.viewer?.shownRank ?? 0);
    byId("rank").style.setProperty("--arrived", `${(100 * Math.max(this.ranks - 1, 0)) / Math.max(about.ranks - 1, 1)}%`);
    byId("value").textContent = `${rank} of ${about.ranks}`;
    if (this.viewer?.rank === null) byId("rank").value = rank;
    const bytes = this.sizes[rank - 1];
    byId("size").textContent = bytes ? `${(bytes / 1e6).toFixed(2)} MB` : "–";
    byId("quality").textContent = qualityText(this.psnr, rank) ?? qualityText(about.psnr, rank, true) ?? "–";
    if (this.last) {
      const [width, height] = this.last.size;
      byId("pixels").textContent = `${width} × ${height}`;
      // Of a still picture the time does not matter.
      if (!this.last.fine) byId("speed").textContent = `${Math.max(1000 / this.last.ms, 0.1).toPrecision(2)} fps`;
    }
    const count = about.cameras.length;
    byId("camera").textContent = this.cameraIndex < 0 ? `${count} views` : `${this.cameraIndex + 1} / ${count}`;
  }

  // -- what can be done -----------------------------------------------------------------------------------------------

  moved() {
    this.cameraIndex = -1;
    this.viewer.changed(true);
  }

  /** A rank that the user chose, or null for what the frame time allows. */
  setRank(rank) {
    this.viewer.rank = rank === null ? null : clamp(Math.round(rank) || 1, 1, about.ranks);
    byId("auto").checked = rank === null;
    if (rank !== null) byId("rank").value = this.viewer.rank;
    this.viewer.changed(true);
    this.update();
  }

  setChannel(channel) {
    this.viewer.channel = channel;
    for (const button of document.querySelectorAll("[data-channel]")) {
      button.setAttribute("aria-pressed", String(button.dataset.channel === channel));
    }
    this.viewer.changed();
  }

  setBackdrop(index) {
    const choices = this.backdrops();
    this.backdrop = index % choices.length;
    this.viewer.background = choices[this.backdrop];
    this.viewer.changed();
  }

  /** Colours behind the scene: its own first, but an object's (which is a photographer's paper) not on a dark page. */
  backdrops() {
    const own = about.background;
    const theme = DARK.matches ? [0.08, 0.09, 0.1] : [1, 1, 1];
    const foreign = own === null || (DARK.matches && this.viewer.field.header.space === "box");
    const all = [...(foreign ? [theme, own ?? theme] : [own, theme]), [0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]];
    return all.filter((colour, i) => all.findIndex((other) => other.join() === colour.join()) === i);
  }

  showCamera(index) {
    const count = about.cameras.length;
    this.cameraIndex = ((index % count) + count) % count;
    this.viewer.camera.snap(about.cameras[this.cameraIndex]);
    this.viewer.changed();
    this.update();
  }

  stepCamera(by) {
    this.play(false);
    this.showCamera(this.cameraIndex < 0 ? 0 : this.cameraIndex + by);
  }

  home() {
    this.play(false);
    this.showCamera(0);
  }

  /** Moves the camera along the model's path, over and over. */
  play(on) {
    if (!about.path || on === Boolean(this.playing)) return;
    byId("play").setAttribute("aria-pressed", String(on));
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    if (!on) return;
    const began = performance.now();
    const step = (now) => {
      const { axes, eye, fov, target } = onPath(about.path, ((now - began) / 1000 / SECONDS_ON_PATH) % 1);
      const camera = this.viewer.camera;
      camera.axes = axes;
      camera.target = target;
      camera.distance = norm(add(eye, target, -1));
      camera.fov = (fov * Math.PI) / 180;
      this.moved();
      this.playing = requestAnimationFrame(step);
    };
    this.playing = requestAnimationFrame(step);
  }

  toggleControls() {
    const hidden = document.body.classList.toggle("hidden");
    byId("hide").setAttribute("aria-expanded", String(!hidden));
    this.resized();
  }

  /** The scene is shown in what the panel leaves free. */
  resized() {
    const covered = document.body.classList.contains("hidden") ? 0 : innerHeight - byId("panel").offsetTop;
    document.documentElement.style.setProperty("--covered", `${covered}px`);
    if (!this.viewer) return;
    this.viewer.covered = covered;
    this.viewer.changed(true);
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => {});
  }

  /** Saves what is shown as a PNG. */
  snapshot() {
    const ratio = this.viewer.pixelRatio;
    const height = this.canvas.clientHeight - this.viewer.covered;
    const [wide, high] = [this.canvas.clientWidth, height].map((side) => Math.round(side * ratio));
    const pixels = this.viewer.picture(this.viewer.camera.view(wide, high));
    const canvas = Object.assign(document.createElement("canvas"), { width: wide, height: high });
    canvas.getContext("2d").putImageData(new ImageData(pixels, wide, high), 0, 0);
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${about.title}-rank${this.viewer.shownRank}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }

  // -- widgets and keys -----------------------------------------------------------------------------------------------

  connect() {
    const when = (action) => () => this.viewer && action();
    byId("rank").addEventListener("input", when(() => this.setRank(Number(byId("rank").value))));
    byId("auto").addEventListener("change", when(() => this.setRank(byId("auto").checked ? null : this.viewer.shownRank)));
    for (const button of document.querySelectorAll("[data-channel]")) {
      button.addEventListener("click", when(() => this.setChannel(button.dataset.channel)));
    }
    const actions = {
      previous: () => this.stepCamera(-1), next: () => this.stepCamera(1), home: () => this.home(),
      play: () => this.play(!this.playing), backdrop: () => this.setBackdrop(this.backdrop + 1),
      snapshot: () => this.snapshot(),
    };
    for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", when(action));
    byId("hide").addEventListener("click", () => this.toggleControls());
    byId("help").addEventListener("click", () => byId("keys").showModal());
    byId("full").addEventListener("click", () => this.fullScreen());
    byId("play").disabled = !about.path;
    window.addEventListener("keydown", (event) => this.key(event));
    const observer = new ResizeObserver(() => this.resized());
    for (const element of [this.canvas, byId("panel")]) observer.observe(element);
    DARK.addEventListener("change", when(() => this.setBackdrop(this.backdrop)));
    this.canvas.addEventListener("pointerdown", () => this.play(false));
    this.canvas.addEventListener("webglcontextlost", (event) => this.lost(event));
    window.addEventListener("pagehide", () => this.dispose());
    window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  }

  key(event) {
    if (!this.viewer || event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    const key = event.key.toLowerCase();
    const slider = event.target.id === "rank";
    if (slider && key.startsWith("arrow")) return;
    if (["BUTTON", "INPUT"].includes(event.target.tagName) && key === " ") return;
    const actions = {
      arrowleft: () => this.stepCamera(-1), arrowright: () => this.stepCamera(1), r: () => this.home(),
      j: () => this.setRank(this.viewer.shownRank - 1), k: () => this.setRank(this.viewer.shownRank + 1),
      u: () => this.setRank(null), p: () => this.play(!this.playing), b: () => this.setBackdrop(this.backdrop + 1),
      m: () => this.setChannel(CHANNELS[(CHANNELS.indexOf(this.viewer.channel) + 1) % CHANNELS.length]),
      x: () => this.snapshot(), e: () => this.fullScreen(), h: () => byId("keys").showModal(),
      "?": () => byId("keys").showModal(), q: () => this.toggleControls(),
    };
    const held = this.gestures.hold(key);
    if (held) this.play(false);
    if (held || actions[key]) event.preventDefault();
    if (!event.repeat || key === "j" || key === "k") actions[key]?.();
  }

  // -- the end --------------------------------------------------------------------------------------------------------

  lost(event) {
    event.preventDefault();
    if (this.disposed) return;
    this.dispose();
    this.say("the graphics device was lost, perhaps for want of memory: load the page again");
  }

  /** Gives all memory of the device back. */
  dispose() {
    this.disposed = true;
    this.play(false);
    this.gestures?.dispose();
    this.viewer?.dispose();
    this.viewer = null;
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

/** dB at a rank where it was measured, or about what it is between two that were; {rank: dB}. */
function qualityText(psnr, rank, roughly = false) {
  const known = Object.keys(psnr).map(Number).sort((a, b) => a - b);
  if (rank in psnr) return roughly ? `≈ ${psnr[rank].toFixed(1)} dB` : `${psnr[rank].toFixed(2)} dB`;
  const above = known.find((r) => r > rank);
  const below = known.filter((r) => r < rank).pop();
  if (above === undefined || below === undefined) return null;
  const share = (rank - below) / (above - below);
  return `≈ ${(psnr[below] + share * (psnr[above] - psnr[below])).toFixed(1)} dB`;
}

const page = new Page();
// For scripts: ready when all ranks have arrived, or it is said why not; the rest as Viewer.picture and onPath.
window.tslim = {
  page,
  ready: page.open().catch((error) => {
    if (!(error instanceof ModelError)) throw error;
    page.say(error.message);
  }),
  picture: (view, options) => page.viewer.picture(view, options),
  onPath,
};
