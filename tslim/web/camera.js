// The camera: turns drags, keys and touches into poses, as tslim/preview/camera.py does. Lengths on the screen are given
// as fractions of the picture's height, so that a drag means the same at every size.

const ORBIT_SPEED = Math.PI;
const STEEPEST = (89 * Math.PI) / 180;

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const scaled = (a, s) => [a[0] * s, a[1] * s, a[2] * s];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const norm = (a) => Math.hypot(...a);
const unit = (a) => scaled(a, 1 / norm(a));
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

/** The vector turned about a unit axis. */
function turned(v, axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return add(add(scaled(v, c), cross(axis, v), s), axis, dot(axis, v) * (1 - c));
}

/** Three axes (right, up, back) that look from eye to target. */
function lookAt(eye, target, up) {
  const back = unit(add(eye, target, -1));
  const right = unit(cross(up, back));
  return [right, cross(back, right), back];
}

class OrbitCamera {
  /** `first`: {pose: 3 rows of 4, fov in degrees}; `about`: {up, target, extent}. */
  constructor(first, about) {
    this.up = unit(about.up);
    this.extent = about.extent;
    this.center = about.target;
    this.home = first;
    this.reset();
  }

  reset() {
    this.snap(this.home);
  }

  /** Takes over a camera {pose, fov}; `fov` is that of the shorter side of the picture, in degrees. */
  snap({ pose, fov }) {
    this.axes = [0, 1, 2].map((axis) => unit(pose.map((row) => row[axis])));
    const eye = pose.map((row) => row[3]);
    this.fov = (fov * Math.PI) / 180;
    this.distance = Math.max(dot(add(eye, this.center, -1), this.axes[2]), 0.1 * this.extent);
    this.target = add(eye, this.axes[2], -this.distance);
  }

  get eye() {
    return add(this.target, this.axes[2], this.distance);
  }

  /** Around the target: a drag to the right turns the scene to the right, a drag down shows it from above. */
  orbit(dx, dy) {
    this.axes = this.axes.map((axis) => turned(axis, this.up, -ORBIT_SPEED * dx));
    const height = Math.asin(clamp(dot(this.axes[2], this.up), -1, 1));
    const limit = Math.max(STEEPEST, Math.abs(height));
    const tilt = clamp(height + ORBIT_SPEED * dy, -limit, limit) - height;
    const upright = dot(this.axes[1], this.up) >= 0 ? 1 : -1;
    const [right, up, back] = this.axes.map((axis) => turned(axis, this.axes[0], -upright * tilt));
    const straight = unit(add(up, right, -dot(up, right)));
    this.axes = [unit(right), straight, unit(cross(unit(right), straight))];
    if (dot(this.axes[2], back) < 0) this.axes[2] = scaled(this.axes[2], -1);
  }

  /** Moves the scene with the cursor: what is at the target's depth stays under it. */
  pan(dx, dy) {
    const scale = 2 * this.distance * Math.tan(this.fov / 2);
    this.target = add(add(this.target, this.axes[0], -scale * dx), this.axes[1], scale * dy);
  }

  /** Towards the target for positive amounts: 1 halves the distance. */
  zoom(amount) {
    this.distance = clamp(this.distance * 2 ** -amount, 1e-3 * this.extent, 20 * this.extent);
  }

  /** Moves eye and target together; full speed crosses a third of the scene each second. */
  fly(right, up, forward, seconds) {
    const move = [right, up, -forward].reduce((sum, v, i) => add(sum, this.axes[i], v), [0, 0, 0]);
    this.target = add(this.target, move, 0.33 * this.extent * seconds);
  }

  /** Pose and intrinsics for a picture of this size, of which `covered` pixels at the bottom are behind something. */
  view(width, height, covered = 0) {
    const free = Math.max(height - covered, 1);
    const focal = (0.5 * Math.min(width, free)) / Math.tan(this.fov / 2);
    const eye = this.eye;
    const pose = [0, 1, 2].map((row) => [...this.axes.map((axis) => axis[row]), eye[row]]);
    return { pose, intrinsics: [focal, focal, width / 2, free / 2], width, height, focus: this.distance };
  }
}

/** A camera on a path of tslim/scene/paths.py, at a share (0 to 1) of it. */
function onPath(path, share) {
  const phase = 2 * Math.PI * share;
  const fov = path.fov;
  if (path.path === "spiral") {
    const axes = [path.right, path.up, cross(path.right, path.up)];
    const loops = [Math.cos(path.turns * phase), -Math.sin(path.turns * phase), -Math.sin(phase)];
    const eye = loops.reduce((sum, v, i) => add(sum, axes[i], v * path.radii[i]), path.center);
    const target = add(path.center, axes[2], -path.focus);
    return { eye, target, axes: lookAt(eye, target, path.up), fov };
  }
  const up = unit(path.up);
  const reference = Math.abs(up[1]) < 0.9 ? [0, 1, 0] : [0, 0, -1];
  const east = unit(cross(reference, up));
  const north = cross(up, east);
  const tilt = (clamp(path.elevation, -89, 89) * Math.PI) / 180;
  const level = add(scaled(east, Math.cos(phase)), north, Math.sin(phase));
  const eye = add(path.center, add(scaled(level, Math.cos(tilt)), up, Math.sin(tilt)), path.radius);
  return { eye, target: path.center, axes: lookAt(eye, path.center, up), fov };
}
