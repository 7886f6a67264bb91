// Draws a field with march.frag: a picture at once, or in strips that leave the page responsive however slow the device.

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;
const CHANNELS = ["colour", "depth", "opacity"];
const SPACES = ["box", "ndc", "contracted"];
const LONGEST = 10; // in field coordinates, of a ray of a contracted space
const ONE_COLOUR = 1e9; // a span that takes in a whole ray
const DEFAULT_MARCH = { step_ratio: 0.5, weight_threshold: 1e-4, stop_transmittance: 1e-4, colour_span: 0 };
const KINDS = ["density", "appearance"];
const TEXTURE_NAMES = KINDS.flatMap((kind) => [...PLANE_NAMES, ...LINE_NAMES].map((name) => kind + name));

function compiled(gl, kind, text) {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, text);
  gl.compileShader(shader);
  return shader;
}

function linked(gl, fragment) {
  const program = gl.createProgram();
  const shaders = [compiled(gl, gl.VERTEX_SHADER, VERTEX), compiled(gl, gl.FRAGMENT_SHADER, fragment)];
  for (const shader of shaders) gl.attachShader(program, shader);
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const said = shaders.map((shader) => gl.getShaderInfoLog(shader)).join(" ") + gl.getProgramInfoLog(program);
    throw new ModelError(`this device cannot draw the model: ${said.trim().slice(0, 300)}`);
  }
  for (const shader of shaders) gl.deleteShader(shader);
  return program;
}

/** A picture on the device that can be drawn into. */
class Target {
  constructor(gl) {
    this.gl = gl;
    this.size = [0, 0];
    this.texture = null;
    this.buffer = gl.createFramebuffer();
  }

  resize(width, height) {
    const gl = this.gl;
    if (this.size[0] === width && this.size[1] === height) return;
    gl.deleteTexture(this.texture);
    this.size = [width, height];
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.texture, 0);
  }

  dispose() {
    this.gl.deleteTexture(this.texture);
    this.gl.deleteFramebuffer(this.buffer);
  }
}

class Painter {
  constructor(gl, field) {
    this.gl = gl;
    this.field = field;
    const { header, layout } = field;
    const constants = {
      ...layout,
      SPACE: SPACES.indexOf(header.space),
      SOFTPLUS: +((header.config.density_activation ?? "softplus") === "softplus"),
    };
    const defines = Object.entries(constants).map(([name, value]) => `#define ${name} ${value}\n`);
    this.program = linked(gl, `#version 300 es\n${defines.join("")}${MARCH_SHADER}`);
    this.vertices = gl.createVertexArray();
    this.places = {};
    for (let i = 0; i < gl.getProgramParameter(this.program, gl.ACTIVE_UNIFORMS); ++i) {
      const name = gl.getActiveUniform(this.program, i).name.replace("[0]", "");
      this.places[name] = gl.getUniformLocation(this.program, name);
    }
    this.setFixed();
  }

  /** Uniforms that are the field's own. */
  setFixed() {
    const { gl, field, places } = this;
    const { header } = field;
    const march = { ...DEFAULT_MARCH, ...(header.metadata.march ?? {}) };
    const sides = [0, 1, 2].map((a) => header.box[1][a] - header.box[0][a]);
    const perUnit = sides.map((side, a) => (header.grid[a] - 1) / side);
    this.voxel = perUnit.reduce((sum, v) => sum + 1 / v, 0) / 3;
    this.span = march.colour_span * this.voxel;
    const step = march.step_ratio * this.voxel;
    const longest = header.space === "contracted" ? LONGEST : norm(sides);
    const limits = header.space === "ndc" ? [0, 1e10] : [header.near, header.far];
    gl.useProgram(this.program);
    gl.uniform3fv(places.uBoxMin, header.box[0]);
    gl.uniform3fv(places.uBoxMax, header.box[1]);
    gl.uniform3fv(places.uTexelsPerUnit, perUnit);
    gl.uniform3fv(places.uGrid, header.grid);
    gl.uniform4fv(places.uCube, cubeOf(header));
    gl.uniform1f(places.uNear, limits[0]);
    gl.uniform1f(places.uFar, limits[1]);
    gl.uniform1f(places.uStep, step);
    gl.uniform1i(places.uSteps, Math.floor(longest / step) + 1);
    gl.uniform1f(places.uDeltaScaled, step * (header.config.distance_scale ?? 25));
    gl.uniform1f(places.uStop, march.early_stop ?? march.stop_transmittance);  // its name in older files
    gl.uniform1f(places.uThreshold, march.weight_threshold);
    gl.uniform1i(places.uHasOccupancy, +field.hasOccupancy);
    gl.uniform3iv(places.uCells, field.cells);
    gl.uniform3fv(places.uCellOrigin, field.cellOrigin);
    gl.uniform3fv(places.uCellsPerUnit, field.cellsPerUnit);
    TEXTURE_NAMES.forEach((name, unit) => {
      gl.uniform1i(places["u" + name[0].toUpperCase() + name.slice(1)], unit);
    });
    gl.uniform1i(places.uOccupied, 12);
    gl.uniform1i(places.uFree, 13);
    if (places.uWeights) gl.uniform1i(places.uWeights, 14);
    if (!field.layout.WEIGHTS_IN_TEXTURE) gl.uniformBlockBinding(this.program, 0, 0);
  }

  bindTextures() {
    const { gl, field } = this;
    TEXTURE_NAMES.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      field.layers[name].bind();
    });
    gl.activeTexture(gl.TEXTURE12);
    gl.bindTexture(gl.TEXTURE_3D, field.occupied);
    gl.activeTexture(gl.TEXTURE13);
    gl.bindTexture(gl.TEXTURE_3D, field.free);
    gl.activeTexture(gl.TEXTURE14);
    if (field.layout.WEIGHTS_IN_TEXTURE) gl.bindTexture(gl.TEXTURE_2D, field.weightsTexture);
    else gl.bindBufferBase(gl.UNIFORM_BUFFER, 0, field.weightsBuffer);
    gl.activeTexture(gl.TEXTURE15);
  }

  /** How many components of a kind are in use: its layers, and which lanes of the last. */
  setLayers(kind, components) {
    const { gl, places } = this;
    const layers = Math.ceil(components / 4);
    gl.uniform1i(places[`u${kind}Layers`], layers);
    gl.uniform4fv(places[`u${kind}Mask`], [0, 1, 2, 3].map((lane) => +(4 * (layers - 1) + lane < components)));
  }

  setRank(rank) {
    const { gl, places, field } = this;
    this.setLayers("Density", Math.min(rank, field.kept.density));
    this.setLayers("Appearance", 3 * Math.min(rank, field.kept.appearance));
    const shift = field.header.config.density_shift ?? -10;
    const rankScales = field.rankScales[rank - 1];
    gl.uniform2f(places.uDensityScale, rankScales ? rankScales[0] : 1, shift + (rankScales ? rankScales[1] : 0));
    const scales = new Float32Array(28).fill(1);
    const shifts = new Float32Array(28);
    if (rankScales) {
      scales.set(rankScales.subarray(2, 2 + N_FEATURES));
      shifts.set(rankScales.subarray(2 + N_FEATURES));
    }
    gl.uniform4fv(places.uFeatureScale, scales);
    gl.uniform4fv(places.uFeatureShift, shifts);
  }

  /**
   * Draws rows `first` to `end` (from the bottom) of a picture into a target of its size.
   *
   * view: as OrbitCamera.view makes it. options: rank, channel, background, exact (as many colours a ray as the model
   * was trained with, instead of one).
   */
  draw(target, view, options, first = 0, end = view.height) {
    const { gl, places } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.buffer);
    gl.viewport(0, 0, view.width, view.height);
    gl.useProgram(this.program);
    gl.bindVertexArray(this.vertices);
    this.bindTextures();
    this.setRank(options.rank);
    const [r0, r1, r2] = view.pose;
    gl.uniformMatrix3fv(places.uRotation, false, [0, 1, 2].flatMap((axis) => [r0[axis], r1[axis], r2[axis]]));
    gl.uniform3f(places.uOrigin, r0[3], r1[3], r2[3]);
    gl.uniform4fv(places.uIntrinsics, view.intrinsics);
    gl.uniform1f(places.uHeight, view.height);
    gl.uniform3fv(places.uBackground, options.background);
    gl.uniform1i(places.uChannel, CHANNELS.indexOf(options.channel));
    gl.uniform2f(places.uDepthScale, view.focus, this.field.header.space === "box" ? 4 : 1.5);
    gl.uniform1f(places.uSpan, options.exact ? this.span : ONE_COLOUR);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, first, view.width, end - first);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.SCISSOR_TEST);
  }

  /** A picture's pixels, (height, width, 4) bytes from the top. */
  pixels(target) {
    const gl = this.gl;
    const [width, height] = target.size;
    const upwards = new Uint8Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.buffer);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, upwards);
    const out = new Uint8ClampedArray(upwards.length);
    const row = 4 * width;
    for (let y = 0; y < height; ++y) out.set(upwards.subarray(row * (height - 1 - y), row * (height - y)), row * y);
    return out;
  }

  /** Whether one colour a ray is all that the model was trained with. */
  get deferred() {
    return this.span >= norm([0, 1, 2].map((a) => this.field.header.box[1][a] - this.field.header.box[0][a]));
  }

  dispose() {
    this.gl.deleteProgram(this.program);
    this.gl.deleteVertexArray(this.vertices);
  }
}

/** Centre and half a side of a contracted space's cube; in ndc the near plane's distance takes the last place. */
function cubeOf(header) {
  if (header.space === "ndc") return [0, 0, 0, header.near];
  if (header.space === "box") return [0, 0, 0, 1];
  const [low, high] = header.cube;
  return [...low.map((v, a) => (v + high[a]) / 2), (high[0] - low[0]) / 2];
}
