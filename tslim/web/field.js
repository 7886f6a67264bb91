// A field in the memory of the graphics device: planes and lines as layers of texture arrays in the order of ranks, four
// components in a texel, filled as ranks arrive; basis and decoder as one array of weights; occupancy as 3-D textures.

const PLANE_NAMES = ["XY", "XZ", "YZ"];
const LINE_NAMES = ["Z", "Y", "X"];
const BLOCK = 8;
const FARTHEST = 31;
const WEIGHTS_WIDTH = 256;

/** Components of one kind and mode, one after the other, in a texture array of `width` x `height` texels. */
class Layers {
  constructor(gl, width, height, components) {
    this.gl = gl;
    this.size = [width, height];
    this.texture = gl.createTexture();
    this.staged = new Uint16Array(4 * width * height);
    this.bind();
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA16F, width, height, Math.ceil(components / 4));
    for (const [name, value] of [
      [gl.TEXTURE_MIN_FILTER, gl.LINEAR],
      [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE],
      [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) gl.texParameteri(gl.TEXTURE_2D_ARRAY, name, value);
  }

  bind() {
    this.gl.bindTexture(this.gl.TEXTURE_2D_ARRAY, this.texture);
  }

  /** Writes components `first` and so on; they must come in order. */
  put(first, values) {
    const texels = this.size[0] * this.size[1];
    for (let k = first, at = 0; at < values.length; ++k, at += texels) {
      if (k % 4 === 0) this.staged.fill(0);
      for (let i = 0, to = k % 4; i < texels; ++i, to += 4) this.staged[to] = values[at + i];
      if (k % 4 === 3 || at + texels >= values.length) this.upload(k >> 2);
    }
  }

  upload(layer) {
    const gl = this.gl;
    this.bind();
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 4);
    gl.texSubImage3D(
      gl.TEXTURE_2D_ARRAY, 0, 0, 0, layer, ...this.size, 1, gl.RGBA, gl.HALF_FLOAT, this.staged);
  }
}

/** Bytes on the device of a field of so many ranks. */
function deviceBytes(header, ranks) {
  const { modes } = blockLayout(header, 0);
  const texels = modes.reduce((sum, [plane, line]) => sum + plane + line, 0);
  return 8 * texels * (Math.ceil(ranks / 4) + Math.ceil((3 * ranks) / 4));
}

/** Where what lies among the weights, in vectors of four: constants of march.frag. */
function weightLayout(header, ranks) {
  const { config, decoder } = header;
  const layout = { MLP: +(config.decoder === "mlp") };
  let end = 0;
  const place = (n) => (end += n) - n;
  if (layout.MLP) {
    layout.K_FEATURES = config.feature_encoding ?? 2;
    layout.K_DIRS = config.direction_encoding ?? 2;
    layout.WIDTH4 = Math.ceil(decoder.w1[1] / 4);
    layout.INPUTS4 = 8 + 14 * layout.K_FEATURES + 2 * layout.K_DIRS;
    place(4 * layout.WIDTH4 * layout.INPUTS4);
    layout.B1_AT = place(layout.WIDTH4);
    layout.W2_AT = place(4 * layout.WIDTH4 ** 2);
    layout.B2_AT = place(layout.WIDTH4);
    layout.W3_AT = place(4 * layout.WIDTH4);
    layout.B3_AT = place(1);
  }
  layout.BASIS_AT = place(84 * Math.ceil((3 * ranks) / 4));
  layout.STEPS_AT = -1;
  layout.N_WEIGHTS = end;
  return layout;
}

/** The shader's number of each input of the decoder: features, direction, then frequency by frequency. */
function inputOrder(kFeatures, kDirs) {
  const order = Array.from({ length: 27 }, (_, c) => c).concat([28, 29, 30]);
  for (const part of [0, 1])
    for (let c = 0; c < 27; ++c)
      for (let f = 0; f < kFeatures; ++f) order.push(4 * (8 + 14 * f + 7 * part) + c);
  for (const part of [0, 1])
    for (let c = 0; c < 3; ++c) for (let f = 0; f < kDirs; ++f) order.push(4 * (8 + 14 * kFeatures + 2 * f + part) + c);
  return order;
}

function packDecoder(into, layout, decoder) {
  if (!layout.MLP) return;
  const width = decoder.b1.length;
  const put = (at, inputs4, weights, outputs, order) => {
    const rows = weights.length / outputs;
    for (let row = 0; row < rows; ++row) {
      const input = order ? order[row] : row;
      for (let out = 0; out < outputs; ++out) {
        const block = (out >> 2) * inputs4 + (input >> 2);
        into[4 * (at + 4 * block + (input & 3)) + (out & 3)] = weights[row * outputs + out];
      }
    }
  };
  put(0, layout.INPUTS4, decoder.w1, width, inputOrder(layout.K_FEATURES, layout.K_DIRS));
  put(layout.W2_AT, layout.WIDTH4, decoder.w2, width);
  put(layout.W3_AT, layout.WIDTH4, decoder.w3, 3);
  into.set(decoder.b1, 4 * layout.B1_AT);
  into.set(decoder.b2, 4 * layout.B2_AT);
  into.set(decoder.b3, 4 * layout.B3_AT);
}

/** Cells in the order x, y, z as bits of 2 x 2 x 2 cells, and by block how many blocks around are empty. */
function packOccupancy({ cells: [nz, ny, nx], present }) {
  const size = [nx, ny, nz].map((n) => Math.ceil(n / 2));
  const blocks = [nx, ny, nz].map((n) => Math.ceil(n / BLOCK));
  const packed = new Uint8Array(product(size));
  const free = new Uint8Array(product(blocks)).fill(FARTHEST);
  for (let z = 0, i = 0; z < nz; ++z)
    for (let y = 0; y < ny; ++y)
      for (let x = 0; x < nx; ++x, ++i) {
        if (!present[i]) continue;
        packed[((z >> 1) * size[1] + (y >> 1)) * size[0] + (x >> 1)] |= 1 << ((x & 1) | ((y & 1) << 1) | ((z & 1) << 2));
        free[((z >> 3) * blocks[1] + (y >> 3)) * blocks[0] + (x >> 3)] = 0;
      }
  spreadDistances(free, blocks);
  return { size, packed, blocks, free };
}

/** Turns 0 and FARTHEST into how far the nearest 0 is, in steps along axes and diagonals. */
function spreadDistances(free, [nx, ny, nz]) {
  const strides = [1, nx, nx * ny];
  for (let pass = 1; pass < FARTHEST; ++pass) {
    let changed = false;
    // One step along each axis after the other reaches the diagonals, too.
    let reached = Uint8Array.from(free, (v) => +(v < pass));
    for (let axis = 0; axis < 3; ++axis) {
      const n = [nx, ny, nz][axis];
      const next = reached.slice();
      for (let i = 0; i < free.length; ++i) {
        if (reached[i]) continue;
        const at = Math.floor(i / strides[axis]) % n;
        if ((at > 0 && reached[i - strides[axis]]) || (at + 1 < n && reached[i + strides[axis]])) next[i] = 1;
      }
      reached = next;
    }
    for (let i = 0; i < free.length; ++i) {
      if (reached[i] && free[i] > pass) {
        free[i] = pass;
        changed = true;
      }
    }
    if (!changed) break;
  }
}

class DeviceField {
  /** Makes room for `ranks` ranks. Throws ModelError where the device has none. */
  constructor(gl, { header, decoder, occupancy }, ranks) {
    this.gl = gl;
    this.header = header;
    this.room = ranks;
    this.rank = 0;
    this.rankScales = [];
    this.kept = { density: Infinity, appearance: Infinity };
    if (header.tail) this.kept[header.tail.kind === "density" ? "appearance" : "density"] = header.tail.after;
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (Math.max(...header.grid) > most) {
      throw new ModelError(`the model's grid is larger than this device's textures (${most} texels a side)`);
    }
    while (gl.getError() !== gl.NO_ERROR);
    this.makeLayers();
    this.makeWeights(decoder);
    this.makeOccupancy(occupancy);
    if (gl.getError() === gl.OUT_OF_MEMORY) {
      this.dispose();
      throw new ModelError("this device has too little graphics memory for the model");
    }
  }

  makeLayers() {
    const { gl, header, room } = this;
    this.layers = {};
    for (const [kind, components] of [["density", room], ["appearance", 3 * room]]) {
      PLANE_AXES.forEach(([u, v], mode) => {
        this.layers[kind + PLANE_NAMES[mode]] = new Layers(gl, header.grid[u], header.grid[v], components);
        this.layers[kind + LINE_NAMES[mode]] = new Layers(gl, header.grid[LINE_AXES[mode]], 1, components);
      });
    }
  }

  makeWeights(decoder) {
    const gl = this.gl;
    this.layout = weightLayout(this.header, this.room);
    const rows = Math.ceil(this.layout.N_WEIGHTS / WEIGHTS_WIDTH);
    this.weights = new Float32Array(4 * WEIGHTS_WIDTH * rows);
    packDecoder(this.weights, this.layout, decoder);
    this.layout.WEIGHTS_IN_TEXTURE = +(16 * this.layout.N_WEIGHTS > gl.getParameter(gl.MAX_UNIFORM_BLOCK_SIZE));
    if (this.layout.WEIGHTS_IN_TEXTURE) {
      this.weightsTexture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, this.weightsTexture);
      gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, WEIGHTS_WIDTH, rows);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    } else {
      this.weightsBuffer = gl.createBuffer();
    }
    this.uploadWeights();
  }

  uploadWeights() {
    const { gl, weights, layout } = this;
    if (layout.WEIGHTS_IN_TEXTURE) {
      gl.bindTexture(gl.TEXTURE_2D, this.weightsTexture);
      const rows = weights.length / (4 * WEIGHTS_WIDTH);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WEIGHTS_WIDTH, rows, gl.RGBA, gl.FLOAT, weights);
    } else {
      gl.bindBuffer(gl.UNIFORM_BUFFER, this.weightsBuffer);
      gl.bufferData(gl.UNIFORM_BUFFER, weights.subarray(0, 4 * layout.N_WEIGHTS), gl.DYNAMIC_DRAW);
    }
  }

  makeOccupancy(occupancy) {
    const gl = this.gl;
    const nothing = { cells: [1, 1, 1], present: Uint8Array.of(1), box: this.header.box };
    this.hasOccupancy = occupancy !== null;
    const { cells, box } = occupancy ?? nothing;
    const { size, packed, blocks, free } = packOccupancy(occupancy ?? nothing);
    this.cells = [...cells].reverse();
    this.cellOrigin = box[0];
    this.cellsPerUnit = this.cells.map((n, a) => n / (box[1][a] - box[0][a]));
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    [this.occupied, this.free] = [[size, packed], [blocks, free]].map(([shape, values]) => {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_3D, texture);
      gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R8UI, ...shape);
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, ...shape, gl.RED_INTEGER, gl.UNSIGNED_BYTE, values);
      gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
      gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
      return texture;
    });
  }

  /** Takes over the next rank's block. */
  add({ density, appearance, basis, rankScales }) {
    const rank = this.rank;
    for (const [kind, per, factors] of [["density", 1, density], ["appearance", 3, appearance]]) {
      factors?.forEach(([plane, line], mode) => {
        this.layers[kind + PLANE_NAMES[mode]].put(per * rank, plane);
        this.layers[kind + LINE_NAMES[mode]].put(per * rank, line);
      });
    }
    if (basis) this.addBasis(basis, rank);
    this.rankScales.push(rankScales ? this.wholeScales(rankScales, density, appearance) : null);
    this.rank = rank + 1;
  }

  addBasis(basis, rank) {
    for (let mode = 0; mode < 3; ++mode)
      for (let c = 0; c < 3; ++c) {
        const k = 3 * rank + c;
        const row = this.layout.BASIS_AT + 84 * (k >> 2) + 28 * mode + 7 * (k & 3);
        const from = (3 * mode + c) * N_FEATURES;
        this.weights.set(basis.subarray(from, from + N_FEATURES), 4 * row);
      }
    this.uploadWeights();
  }

  /** A row of 56; what only the other kind's rows have is that of the rank before. */
  wholeScales(row, density, appearance) {
    const whole = new Float32Array(SCALES_WIDTH);
    const before = this.rankScales[this.rank - 1] ?? null;
    if (!density) whole.set(before.subarray(0, 2));
    if (!appearance) whole.set(before.subarray(2), 2);
    whole.set(row, density ? 0 : 2);
    return whole;
  }

  dispose() {
    const gl = this.gl;
    for (const layers of Object.values(this.layers)) gl.deleteTexture(layers.texture);
    for (const texture of [this.weightsTexture, this.occupied, this.free]) gl.deleteTexture(texture ?? null);
    gl.deleteBuffer(this.weightsBuffer ?? null);
    this.layers = {};
    this.weights = null;
  }
}
