// The viewer without its widgets: what is shown, when it is drawn, and how fine. It draws only what has changed, in strips
// of a few milliseconds, so that the page stays responsive on any device; it never draws while the page is hidden.

const STRIP_MS = 12; // of drawing that is handed to the device at once, about
const STILL_MS = 160; // after the last movement, until the fine picture begins

class Viewer {
  constructor(canvas, field, camera, budget) {
    this.canvas = canvas;
    this.field = field;
    this.camera = camera;
    this.gl = field.gl;
    this.painter = new Painter(this.gl, field);
    this.pace = new Pace(budget);
    this.channel = "colour";
    this.background = field.header.background ?? [1, 1, 1];
    this.rank = null; // null: as many as there are, fewer while something moves
    this.targets = [new Target(this.gl), new Target(this.gl)];
    this.pixelsPerMs = 2000;
    this.covered = 0; // of the canvas at the bottom, in its pixels on the page
    this.movedAt = performance.now(); // a coarse picture first
    this.job = null;
    this.stale = true;
    this.fine = false;
    this.shown = null;
    this.onShown = () => {};
    this.frame = requestAnimationFrame(() => this.tick());
  }

  /** Something is to be drawn anew; `moving`: quickly rather than finely. */
  changed(moving = false) {
    this.stale = true;
    if (moving) this.movedAt = performance.now();
  }

  get ranks() {
    return this.field.rank;
  }

  get shownRank() {
    return Math.min(this.rank ?? this.ranks, this.ranks);
  }

  get pixelRatio() {
    return Math.min(window.devicePixelRatio || 1, 2);
  }

  tick() {
    if (!this.painter) return;
    this.frame = requestAnimationFrame(() => this.tick());
    if (this.gl.isContextLost() || this.ranks === 0 || document.hidden) return;
    if (this.job?.fence && !this.finished(this.job)) return;
    const still = performance.now() - this.movedAt > STILL_MS;
    if (this.stale && !(this.job && !this.job.fine)) this.start(still);
    else if (!this.job && !this.fine && still) this.start(true);
    if (this.job) this.strip();
  }

  /** Begins a picture; an unfinished fine one is dropped. */
  start(fine) {
    const most = this.shownRank;
    const choice = fine ? { rank: most, scale: 1, exact: true } : this.pace.choice(most, this.rank !== null);
    const { clientWidth, clientHeight } = this.canvas;
    const scale = choice.scale * this.pixelRatio;
    const size = [clientWidth, clientHeight].map((side) => Math.max(Math.round(side * scale), 1));
    this.job = {
      fine,
      choice,
      view: this.camera.view(...size, this.covered * scale),
      options: { rank: choice.rank, exact: choice.exact, channel: this.channel, background: this.background },
      row: size[1],
      cost: 0,
      fence: null,
    };
    this.targets[1].resize(...size);
    this.stale = false;
    this.fine = false;
  }

  /** Hands the device the next strip, from the top. */
  strip() {
    const job = this.job;
    const { width } = job.view;
    const rows = job.fine ? Math.ceil((this.pixelsPerMs * STRIP_MS) / width) : job.view.height;
    const end = job.row;
    job.row = Math.max(0, end - Math.max(rows, 1));
    job.pixels = (end - job.row) * width;
    this.painter.draw(this.targets[1], job.view, job.options, job.row, end);
    job.fence = this.gl.fenceSync(this.gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    job.began = performance.now();
    this.gl.flush();
  }

  /** Whether the strip that was handed over is drawn; then what it cost is noted, and a whole picture shown. */
  finished(job) {
    const gl = this.gl;
    const status = gl.getSyncParameter(job.fence, gl.SYNC_STATUS);
    if (status !== gl.SIGNALED) return false;
    gl.deleteSync(job.fence);
    job.fence = null;
    const ms = Math.max(performance.now() - job.began, 0.1);
    job.cost += ms;
    const rate = job.pixels / ms;
    this.pixelsPerMs = Math.max(20, 0.5 * (this.pixelsPerMs + rate));
    if (job.row > 0) return true;
    this.job = null;
    this.fine = job.fine && !this.stale && job.choice.rank === this.shownRank;
    if (!job.fine) this.pace.took(job.cost);
    this.targets.reverse();
    this.present();
    this.shown = { ...job.choice, fine: job.fine, ms: job.cost, size: [job.view.width, job.view.height] };
    this.onShown(this.shown);
    return true;
  }

  /** Puts the finished picture on the page. */
  present() {
    const gl = this.gl;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map(
      (side) => Math.max(Math.round(side * this.pixelRatio), 1));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const [w, h] = this.targets[0].size;
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.targets[0].buffer);
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
    gl.blitFramebuffer(0, 0, w, h, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.LINEAR);
  }

  /** A picture by itself: {pose, intrinsics, width, height} and options as for Painter.draw; bytes from the top. */
  picture(view, options = {}) {
    const target = new Target(this.gl);
    target.resize(view.width, view.height);
    const given = { rank: this.shownRank, exact: true, channel: this.channel, background: this.background, ...options };
    this.painter.draw(target, { focus: this.camera.distance, ...view }, given);
    const pixels = this.painter.pixels(target);
    target.dispose();
    return pixels;
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    if (!this.painter) return;
    for (const target of this.targets) target.dispose();
    this.painter.dispose();
    this.field.dispose();
    this.painter = null;
  }
}
