// Unpacks what is coded in compact model files, as tslim/model/{entropy,neighbours,cells,shared,compact}.py write it;
// docs/format.md says it byte by byte. Whole numbers throughout, so that the same levels come out everywhere.
//
//   const compact = new CompactDecoder(header);           // of a file of version 4, its json inflated and parsed
//   const { decoder, occupancy } = compact.shared(bytes); // the bytes between header and first rank
//   const { density, appearance, steps, basis, rankScales } = compact.rank(block, 0);  // rank by rank, in order
//
// A plane or line holds its levels (Int8Array) times its step.

class CodeError extends Error {}

const CODE = { lanes: 256, piece: 4096, symbols: 39, scaleBits: 14, low: 65536, weight: 16, full: 32768, most: 127 };
const SCALE = 1 << CODE.scaleBits;

/** Of each symbol: the number nearest to 0 that it stands for, and how many plain bits follow. */
const SYMBOLS = Array.from({ length: CODE.symbols }, (_, symbol) => {
  const bucket = (symbol + 1) >> 1;
  const octave = (bucket - 2) >> 1;
  const size = bucket < 8 ? bucket : (2 + (bucket & 1)) << (octave - 1);
  return { start: symbol & 1 ? size : -size, bits: bucket < 8 ? 0 : octave - 1 };
});
const STARTS = Int32Array.from(SYMBOLS, (s) => s.start);
const BITS = Uint8Array.from(SYMBOLS, (s) => s.bits);

/** How often each symbol came in each context, and what shares of SCALE that gives them. */
class Tables {
  constructor(counts, width) {
    this.counts = counts;
    this.width = width;
    this.parts = new Int32Array(counts.length);
    this.ends = new Int32Array(counts.length);
    this.touched = new Uint8Array(counts.length / width);
    for (let context = 0; context < this.touched.length; ++context) this.share(context);
  }

  learn(contexts, symbols, from, to) {
    for (let i = from; i < to; ++i) {
      this.counts[contexts[i] * this.width + symbols[i]] += CODE.weight;
      this.touched[contexts[i]] = 1;
    }
    for (let context = 0; context < this.touched.length; ++context) {
      if (this.touched[context]) this.share(context);
      this.touched[context] = 0;
    }
  }

  share(context) {
    const from = context * this.width;
    const to = from + this.width;
    let total = 0;
    for (let i = from; i < to; ++i) total += this.counts[i];
    if (total > CODE.full) {
      total = 0;
      for (let i = from; i < to; ++i) total += this.counts[i] = (this.counts[i] + 1) >> 1;
    }
    let rest = SCALE;
    let likeliest = from;
    for (let i = from; i < to; ++i) {
      rest -= this.parts[i] = 1 + Math.floor((this.counts[i] * (SCALE - this.width)) / total);
      if (this.counts[i] > this.counts[likeliest]) likeliest = i;
    }
    this.parts[likeliest] += rest;
    for (let i = from, end = 0; i < to; ++i) this.ends[i] = end += this.parts[i];
  }
}

const lanesFor = (carried) => Math.min(Math.max(carried >> 1, 16), CODE.lanes);

/** Interleaved rANS: see entropy.py. */
class RansDecoder {
  constructor(bytes, lanes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const words = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (words < 2 * lanes || 4 + 2 * words > bytes.length) throw new CodeError("the coded numbers are cut short");
    this.states = Float64Array.from({ length: lanes }, (_, lane) => view.getUint32(4 + 4 * lane, true));
    this.view = view;
    this.at = 4 + 4 * lanes;
    this.wordsEnd = 4 + 2 * words;
    this.bit = 8 * this.wordsEnd;
    this.bitsEnd = 8 * bytes.length;
    this.symbols = new Uint8Array(0);
  }

  /** Writes n numbers, each in its context, into `numbers`. */
  take(tables, contexts, n, numbers) {
    if (this.symbols.length < n) this.symbols = new Uint8Array(n);
    for (let from = 0; from < n; from += CODE.piece) {
      const to = Math.min(from + CODE.piece, n);
      this.piece(tables, contexts, from, to);
      tables.learn(contexts, this.symbols, from, to);
    }
    for (let i = 0; i < n; ++i) {
      const start = STARTS[this.symbols[i]];
      const bits = BITS[this.symbols[i]];
      numbers[i] = bits === 0 ? start : start < 0 ? start - this.plain(bits) : start + this.plain(bits);
    }
  }

  piece(tables, contexts, from, to) {
    const { states, view, symbols } = this;
    const { parts, ends, width } = tables;
    const lanes = states.length;
    for (let i = from, lane = 0; i < to; ++i) {
      const x = states[lane];
      const slot = x & (SCALE - 1);
      const first = contexts[i] * width;
      let which = first;
      while (ends[which] <= slot) ++which;
      const part = parts[which];
      let next = part * Math.floor(x / SCALE) + slot - ends[which] + part;
      if (next < CODE.low) {
        if (this.at >= this.wordsEnd) throw new CodeError("the coded numbers end too early");
        next = next * 65536 + view.getUint16(this.at, true);
        this.at += 2;
      }
      states[lane] = next;
      symbols[i] = which - first;
      if (++lane === lanes) lane = 0;
    }
  }

  plain(bits) {
    if (this.bit + bits > this.bitsEnd) throw new CodeError("the coded numbers end too early");
    let value = 0;
    for (let i = 0; i < bits; ++i, ++this.bit) {
      value = 2 * value + ((this.view.getUint8(this.bit >> 3) >> (7 - (this.bit & 7))) & 1);
    }
    return value;
  }

  /** What the lanes carried, once all numbers are taken. */
  carried() {
    const bytes = new Uint8Array(2 * this.states.length);
    const view = new DataView(bytes.buffer);
    this.states.forEach((x, lane) => view.setUint16(2 * lane, x - CODE.low, true));
    return bytes;
  }
}

// -- planes and lines: see neighbours.py --------------------------------------------------------------------------------

const FIRST = 8;
const STRIDES = [4, 2, 1];
const PAD = 12;
const LIMITS = [
  256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5792, 8192, 11585, 16384, 23170, 32768, 46340, 65536, 92681, 131072,
  185363, 262144, 370727,
];
const SIDES = [[-1, 0], [1, 0], [0, -1], [0, 1]];
const CORNERS = [[-1, -1], [-1, 1], [1, -1], [1, 1]];
const KNIGHTS = [[-2, -1], [-2, 1], [2, -1], [2, 1], [-1, -2], [1, -2], [-1, 2], [1, 2]];
const FAR = [[-3, -1], [-3, 1], [3, -1], [3, 1], [-1, -3], [1, -3], [-1, 3], [1, 3]];
const ALONG = [[0, -1], [0, 1]];
const PASSES = {
  plane: [
    { odd: [1, 1], near: CORNERS, far: FAR, farWeight: 1 },
    { odd: [1, 0], near: SIDES, far: KNIGHTS, farWeight: 1 },
    { odd: [0, 1], near: SIDES, far: CORNERS, farWeight: 2 },
  ],
  line: [{ odd: [0, 1], near: [...ALONG, ...ALONG], far: [[0, -3], [0, 3]], farWeight: 4 }],
};

function newTables() {
  const counts = new Int32Array((LIMITS.length + 1) * 15 * CODE.symbols);
  for (let spread = 0; spread <= LIMITS.length; ++spread) {
    const mean = spread === 0 ? 2 : Math.max(Math.floor((LIMITS[spread - 1] * 13) / 240), 2);
    const theta = Math.floor((256 * mean) / (256 + mean));
    const inAll = new Float64Array(CODE.symbols);
    let weight = 1 << 20;
    let total = 0;
    for (let n = 0; n <= CODE.most; ++n) {
      const bucket = n < 8 ? n : bucketOf(n);
      inAll[2 * bucket] += weight;
      if (n > 0) inAll[2 * bucket - 1] += weight;
      total += n > 0 ? 2 * weight : weight;
      weight = Math.floor((weight * theta) / 256);
    }
    for (let i = 0; i < 15; ++i) {
      const from = (15 * spread + i) * CODE.symbols;
      for (let s = 0; s < CODE.symbols; ++s) counts[from + s] = 1 + Math.floor((128 * inAll[s]) / total);
    }
  }
  return new Tables(counts, CODE.symbols);
}

function bucketOf(size) {
  const octave = 31 - Math.clz32(size);
  return 2 + 2 * octave + ((size >> (octave - 1)) & 1);
}

/** k planes (h, w), or lines (1, w), of which texels are coded where `seen`. */
class Group {
  constructor(seen, k) {
    Object.assign(this, seen);
    this.k = k;
    this.stride = this.w + 2 * PAD;
    this.size = (this.h + 2 * PAD) * this.stride;
    this.values = new Int16Array(k * this.size);
    this.passes = this.h > 1 ? PASSES.plane : PASSES.line;
  }

  /** Writes the place of every seen texel of some rows and columns, component by component; returns how many. */
  places(top, left, step, into) {
    let n = 0;
    for (let c = 0; c < this.k; ++c) {
      for (let y = top; y < this.h; y += step) {
        const row = c * this.size + (y + PAD) * this.stride + PAD;
        for (let x = left, from = y * this.w; x < this.w; x += step) if (this.seen[from + x]) into[n++] = row + x;
      }
    }
    return n;
  }

  /** Levels of one component. */
  levels(component, into, at) {
    for (let y = 0; y < this.h; ++y) {
      const from = component * this.size + (y + PAD) * this.stride + PAD;
      for (let x = 0; x < this.w; ++x) {
        const value = this.values[from + x];
        if (value < -CODE.most || value > CODE.most) throw new CodeError("a level that is out of range");
        into[at++] = value;
      }
    }
  }
}

function decodeGroups(groups, tables, coder, side) {
  const most = Math.max(...groups.map((group) => group.k * group.h * group.w));
  const found = {
    places: new Int32Array(most), expected: new Int16Array(most), contexts: new Uint16Array(most),
    numbers: new Int16Array(most),
  };
  const take = (group, n) => {
    const { places, expected, contexts, numbers } = found;
    coder.take(tables, contexts, n, numbers);
    for (let i = 0; i < n; ++i) group.values[places[i]] = expected[i] + numbers[i];
  };
  let at = 0;
  for (const group of groups) {
    const spreads = side.subarray(at, (at += group.k));
    if (spreads.some((spread) => spread > LIMITS.length)) throw new CodeError("a spread that is out of range");
    const n = group.places(0, 0, FIRST, found.places);
    for (let i = 0; i < n; ++i) {
      found.expected[i] = 0;
      found.contexts[i] = (3 * spreads[Math.floor(found.places[i] / group.size)] + 1) * 5 + 2;
    }
    take(group, n);
  }
  for (const stride of STRIDES) {
    for (const passes of [PASSES.plane, PASSES.line]) {
      for (const pass of passes) {
        const pull = side[at++];
        for (const group of groups) {
          if (group.passes === passes) take(group, predict(group, stride, pass, pull, found));
        }
      }
    }
  }
}

/** Finds the seen texels of a pass: their places, what is expected there and in which context. Returns how many. */
function predict(group, stride, pass, pull, { places, expected, contexts }) {
  const { values } = group;
  const n = group.places(stride * pass.odd[0], stride * pass.odd[1], 2 * stride, places);
  const offsets = (list) => Int32Array.from(list, ([y, x]) => stride * (y * group.stride + x));
  const [n0, n1, n2, n3] = offsets(pass.near);
  const far = offsets(pass.far);
  const weight = 256 * pass.farWeight;
  for (let i = 0; i < n; ++i) {
    const place = places[i];
    const [a, b, c, d] = [values[place + n0], values[place + n1], values[place + n2], values[place + n3]];
    const sum = pull * (a + b + c + d);
    const mean = sum / 256;
    let farther = 0;
    for (let k = 0; k < far.length; ++k) farther += Math.abs(values[place + far[k]] - mean);
    const near = Math.abs(a - mean) + Math.abs(b - mean) + Math.abs(c - mean) + Math.abs(d - mean);
    const whole = Math.max(-CODE.most, Math.min(CODE.most, (sum + 128) >> 8));
    const part = Math.max(0, Math.min(4, (5 * (sum - 256 * whole + 128)) >> 8));
    expected[i] = whole;
    contexts[i] = (3 * limitsUpTo(1024 * near + weight * farther) + Math.sign(whole) + 1) * 5 + part;
  }
  return n;
}

/** How many of LIMITS are at most so much: there are two to an octave. */
function limitsUpTo(spread) {
  const first = 2 * (31 - Math.clz32(spread)) - 15;
  if (first < 1) return 0;
  if (first >= LIMITS.length) return LIMITS.length;
  return first + (spread >= LIMITS[first]);
}

// -- empty space: see cells.py ------------------------------------------------------------------------------------------

const CELL_BLOCK = 8;

/** Bytes 0 or 1 of cells (Z, Y, X), of which those in `blocks` (a byte each, shape `coarse`) are coded; null: all. */
function decodeWaves([Z, Y, X], blocks, coarse, coder) {
  const [slice, row] = [(Y + 2) * (X + 2), X + 2];
  const padded = new Uint8Array((Z + 2) * slice);
  const before = [-1, -row, -slice, -row - 1, -row + 1, -slice - 1, -slice + 1, -slice - row, -slice + row];
  const tables = new Tables(new Int32Array(1024).fill(8), 2);
  const { places, ends } = inWaves([Z, Y, X], blocks, coarse);
  const most = ends.reduce((longest, end, i) => Math.max(longest, end - (ends[i - 1] ?? 0)), 0);
  const [contexts, bits] = [new Uint16Array(most), new Uint8Array(most)];
  let from = 0;
  for (const end of ends) {
    for (let i = from; i < end; ++i) {
      let context = 0;
      for (let k = 0; k < before.length; ++k) context |= padded[places[i] + before[k]] << k;
      contexts[i - from] = context;
    }
    coder.take(tables, contexts, end - from, bits);
    for (let i = from; i < end; ++i) padded[places[i]] = bits[i - from];
    from = end;
  }
  const cells = new Uint8Array(Z * Y * X);
  for (let z = 0; z < Z; ++z) {
    for (let y = 0; y < Y; ++y) {
      const start = (z + 1) * slice + (y + 1) * row + 1;
      cells.set(padded.subarray(start, start + X), (z * Y + y) * X);
    }
  }
  return cells;
}

/** Places of the coded cells in the padded array, wave by wave, and where each wave ends. */
function inWaves([Z, Y, X], blocks, coarse) {
  const eachRow = (action) => {
    for (let z = 0; z < Z; ++z) {
      for (let y = 0; y < Y; ++y) {
        const block = blocks && ((z >> 3) * coarse[1] + (y >> 3)) * coarse[2];
        for (let first = 0; first < X; first += CELL_BLOCK) {
          if (blocks && !blocks[block + (first >> 3)]) continue;
          action(2 * y + 4 * z, ((z + 1) * (Y + 2) + y + 1) * (X + 2) + 1, first, Math.min(first + CELL_BLOCK, X));
        }
      }
    }
  };
  const starts = new Int32Array(X + 2 * Y + 4 * Z);
  eachRow((wave, place, first, end) => {
    for (let x = first; x < end; ++x) ++starts[wave + x + 1];
  });
  for (let i = 1; i < starts.length; ++i) starts[i] += starts[i - 1];
  const places = new Int32Array(starts[starts.length - 1]);
  const next = starts.slice();
  eachRow((wave, place, first, end) => {
    for (let x = first; x < end; ++x) places[next[wave + x]++] = place + x;
  });
  return { places, ends: starts.subarray(1) };
}

function decodeCells(shape, coder) {
  const coarse = shape.map((n) => Math.ceil(n / CELL_BLOCK));
  return decodeWaves(shape, decodeWaves(coarse, null, null, coder), coarse, coder);
}

/** Per mode, which texels of the plane and the line a sample in occupied space can read: {seen, h, w} each. */
function seenTexels(header, cells) {
  const { grid, occupancy } = header;
  const modes = [[0, 1, 2], [0, 2, 1], [1, 2, 0]];
  const all = (h, w) => ({ seen: new Uint8Array(h * w).fill(1), h, w });
  if (!cells) return modes.map(([u, v, w]) => [all(grid[v], grid[u]), all(1, grid[w])]);
  const reads = [0, 1, 2].map((axis) => {
    const n = occupancy.shape[2 - axis];
    const [low, high] = occupancy.box.map((corner) => corner[axis]);
    const [least, most] = header.box.map((corner) => corner[axis]);
    const step = (high - low) / n;
    const at = Array.from({ length: n + 1 }, (_, i) => {
      return (((i < n ? i * step + low : high) - least) * (grid[axis] - 1)) / (most - least);
    });
    at[0] = Math.min(at[0], 0);
    at[n] = Math.max(at[n], grid[axis] - 1);
    return Array.from({ length: n }, (_, i) => [
      Math.max(Math.floor(at[i] - 1e-3), 0), Math.min(Math.ceil(at[i + 1] + 1e-3), grid[axis] - 1),
    ]);
  });
  return modes.map(([u, v, w]) => {
    const plane = { seen: new Uint8Array(grid[v] * grid[u]), h: grid[v], w: grid[u] };
    const line = { seen: new Uint8Array(grid[w]), h: 1, w: grid[w] };
    const [Z, Y, X] = occupancy.shape;
    const columns = new Uint8Array(occupancy.shape[2 - v] * occupancy.shape[2 - u]);
    const slabs = new Uint8Array(occupancy.shape[2 - w]);
    const at = [0, 0, 0];
    for (let i = 0, z = 0; z < Z; ++z) {
      for (let y = 0; y < Y; ++y) {
        for (let x = 0; x < X; ++x, ++i) {
          if (!cells[i]) continue;
          [at[0], at[1], at[2]] = [x, y, z];
          columns[at[v] * occupancy.shape[2 - u] + at[u]] = 1;
          slabs[at[w]] = 1;
        }
      }
    }
    for (let cv = 0, i = 0; cv < occupancy.shape[2 - v]; ++cv) {
      for (let cu = 0; cu < occupancy.shape[2 - u]; ++cu, ++i) {
        if (!columns[i]) continue;
        for (let y = reads[v][cv][0]; y <= reads[v][cv][1]; ++y) {
          plane.seen.fill(1, y * plane.w + reads[u][cu][0], y * plane.w + reads[u][cu][1] + 1);
        }
      }
    }
    slabs.forEach((any, cw) => any && line.seen.fill(1, reads[w][cw][0], reads[w][cw][1] + 1));
    return [plane, line];
  });
}

// -- what is where in a file: see shared.py, compact.py -----------------------------------------------------------------

function halfFloats(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, i) => {
    const h = view.getUint16(2 * i, true);
    const [exponent, fraction] = [(h >> 10) & 31, h & 1023];
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return h & 0x8000 ? -size : size;
  });
}

const singleFloats = (bytes) => new Float32Array(bytes.slice().buffer);

function joined(...parts) {
  const bytes = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

class CompactDecoder {
  constructor(header) {
    this.header = header;
    this.tables = newTables();
    this.seen = null;
  }

  /** {decoder: Float32Array by name, occupancy: {cells: [z, y, x], present: a byte each, 0 or 1, box} or null} */
  shared(bytes) {
    const { header } = this;
    const product = (shape) => shape.reduce((a, b) => a * b, 1);
    const arrays = Object.entries(header.decoder).map(([name, shape]) => {
      const isMatrix = shape.length === 2;
      return { name, isMatrix, shape, n: product(shape), size: isMatrix ? shape[1] : 2 * product(shape) };
    });
    const plainSize = arrays.reduce((sum, array) => sum + array.size, 0);
    const lanes = lanesFor(plainSize);
    const rest = Math.max(plainSize - 2 * lanes, 0);
    const coder = new RansDecoder(bytes.subarray(rest), lanes);
    const matrices = arrays.filter((array) => array.isMatrix);
    const tables = new Tables(new Int32Array(Math.max(matrices.length, 1) * CODE.symbols).fill(8), CODE.symbols);
    matrices.forEach((array, i) => {
      array.levels = new Int16Array(array.n);
      coder.take(tables, new Uint16Array(array.n).fill(i), array.n, array.levels);
    });
    const present = header.occupancy ? decodeCells(header.occupancy.shape, coder) : null;
    const plain = joined(coder.carried().subarray(0, plainSize - rest), bytes.subarray(0, rest));
    const decoder = {};
    let at = 0;
    for (const { name, isMatrix, shape, levels, size } of arrays) {
      const part = plain.subarray(at, (at += size));
      if (isMatrix) {
        const steps = Float32Array.from(part, (byte) => 2 ** ((byte << 24) >> 24));
        decoder[name] = Float32Array.from(levels, (level, i) => level * steps[i % shape[1]]);
      } else {
        decoder[name] = halfFloats(part);
      }
    }
    this.seen = seenTexels(header, present);
    const occupancy = present && { cells: header.occupancy.shape, present, box: header.occupancy.box };
    return { decoder, occupancy };
  }

  /**
   * The block of 0-based `rank`, from its length on, without its checksum; ranks come in order, after `shared`.
   * {density: per mode [plane, line] or null, appearance: per mode [3 planes, 3 lines] or null, as Int8Array;
   *  steps: Float32Array of each plane and line, density's mode by mode, then appearance's: 3 planes, 3 lines, ...;
   *  basis: Float32Array (3, 3, 27) or null, rankScales: Float32Array or null}
   */
  rank(block, rank) {
    const { header, seen } = this;
    const kind = header.tail && rank >= header.tail.after ? header.tail.kind : "whole";
    const hasDensity = kind !== "appearance";
    const hasAppearance = kind !== "density";
    const k = hasDensity + 3 * hasAppearance;
    const groups = seen.flatMap((mode) => mode.map((texels) => new Group(texels, k)));
    const basisSize = 2 * 9 * 27 * hasAppearance;
    const scalesSize = header.affine ? 8 * hasDensity + 216 * hasAppearance : 0;
    const plainSize = basisSize + scalesSize + 4 * 6 * k;
    const lanes = lanesFor(plainSize);
    const rest = Math.max(plainSize - 2 * lanes, 0);
    const sideEnd = 4 + 6 * k + STRIDES.length * 4;
    const coder = new RansDecoder(block.subarray(sideEnd + rest), lanes);
    decodeGroups(groups, this.tables, coder, block.subarray(4, sideEnd));
    const plain = joined(coder.carried().subarray(0, plainSize - rest), block.subarray(sideEnd, sideEnd + rest));
    const steps = singleFloats(plain.subarray(basisSize + scalesSize));
    if (!steps.every((step) => step > 0 && step < Infinity)) throw new CodeError("a step that is not above 0");
    const taken = (first, count) => [0, 1, 2].map((mode) => [groups[2 * mode], groups[2 * mode + 1]].map((group) => {
      const levels = new Int8Array(count * group.h * group.w);
      for (let c = 0; c < count; ++c) group.levels(first + c, levels, c * group.h * group.w);
      return levels;
    }));
    return {
      density: hasDensity ? taken(0, 1) : null,
      appearance: hasAppearance ? taken(k - 3, 3) : null,
      steps,
      basis: hasAppearance ? halfFloats(plain.subarray(0, basisSize)) : null,
      rankScales: scalesSize ? singleFloats(plain.subarray(basisSize, basisSize + scalesSize)) : null,
    };
  }
}
