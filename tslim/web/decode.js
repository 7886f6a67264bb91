// Unpacks what is coded in compact model files, as tslim/model/{entropy,neighbours,cells,shared,compact}.py write it;
// docs/format.md says it byte by byte. Whole numbers throughout, so that the same comes out everywhere.
//
//   const compact = new CompactDecoder(header);           // of a file of version 5, its json inflated and parsed
//   const { decoder, occupancy } = compact.shared(bytes); // the bytes between header and first rank
//   const { density, appearance, steps, basis, rankScales } = compact.rank(block, 0);  // rank by rank, in order
//
// A plane or line holds its parts (Int16Array) times its step / PARTS.

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

  /** Lets what was counted since the last time take effect. */
  learn() {
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
    this.states = Int32Array.from({ length: lanes }, (_, lane) => view.getInt32(4 + 4 * lane, true));
    this.at = 2 * lanes;
    this.wordsEnd = words;
    this.words = new Uint16Array(words + CODE.piece); // a piece reads no more than a word for each number
    for (let i = this.at; i < words; ++i) this.words[i] = view.getUint16(4 + 2 * i, true);
    this.view = view;
    this.bit = 8 * (4 + 2 * words);
    this.bitsEnd = 8 * bytes.length;
  }

  /** Writes n numbers, each in its context, into `numbers`. */
  take(tables, contexts, n, numbers) {
    for (let from = 0; from < n; from += CODE.piece) this.piece(tables, contexts, from, Math.min(from + CODE.piece, n), numbers);
  }

  /** Numbers from..to, at most CODE.piece. A state is 32 bits without a sign, held in an Int32Array. */
  piece(tables, contexts, from, to, numbers) {
    const { states, words } = this;
    const { parts, ends, counts, touched, width } = tables;
    const lanes = states.length;
    let at = this.at;
    for (let i = from, lane = 0; i < to; ++i) {
      const x = states[lane];
      const slot = x & (SCALE - 1);
      const context = contexts[i];
      const first = Math.imul(context, width);
      let which = first;
      while (ends[which] <= slot) ++which;
      const part = parts[which];
      let next = (Math.imul(part, x >>> CODE.scaleBits) + slot - ends[which] + part) | 0;
      if (next >>> 16 === 0) next = (next << 16) | words[at++];
      states[lane] = next;
      if (++lane === lanes) lane = 0;
      counts[which] += CODE.weight;
      touched[context] = 1;
      const symbol = which - first;
      const start = STARTS[symbol];
      numbers[i] = BITS[symbol] === 0 ? start : start < 0 ? start - this.plain(BITS[symbol]) : start + this.plain(BITS[symbol]);
    }
    if (at > this.wordsEnd) throw new CodeError("the coded numbers end too early");
    this.at = at;
    tables.learn();
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
const PARTS = 16; // of a step
const MOST_EXPECTED = CODE.most * PARTS;
const MOST_PARTS = 2047;
const PULLS = 24; // bytes of a kind: near and far, of three passes over planes and one over lines, at each stride
const LIMITS = [
  16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5792, 8192, 11585, 16384, 23170,
];
const SIDES = [[-1, 0], [1, 0], [0, -1], [0, 1]];
const CORNERS = [[-1, -1], [-1, 1], [1, -1], [1, 1]];
const KNIGHTS = [[-2, -1], [-2, 1], [2, -1], [2, 1], [-1, -2], [1, -2], [-1, 2], [1, 2]];
const FAR = [[-3, -1], [-3, 1], [3, -1], [3, 1], [-1, -3], [1, -3], [-1, 3], [1, 3]];
const ALONG = [[0, -1], [0, 1]];
const ENDS = [[0, -3], [0, 3]];
/** Four near neighbours and eight far ones: where there are fewer they come more than once, by their weight. */
const PASSES = {
  plane: [
    { odd: [1, 1], near: CORNERS, far: FAR },
    { odd: [1, 0], near: SIDES, far: KNIGHTS },
    { odd: [0, 1], near: SIDES, far: [...CORNERS, ...CORNERS] },
  ],
  line: [{ odd: [0, 1], near: [...ALONG, ...ALONG], far: [...ENDS, ...ENDS, ...ENDS, ...ENDS] }],
};

function newTables() {
  const counts = new Int32Array((LIMITS.length + 1) * CODE.symbols);
  for (let spread = 0; spread <= LIMITS.length; ++spread) {
    const mean = spread === 0 ? 2 : Math.max(Math.floor((LIMITS[spread - 1] * 13) / 15), 2);
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
    const from = spread * CODE.symbols;
    for (let s = 0; s < CODE.symbols; ++s) counts[from + s] = 1 + Math.floor((128 * inAll[s]) / total);
  }
  return new Tables(counts, CODE.symbols);
}

function bucketOf(size) {
  const octave = 31 - Math.clz32(size);
  return 2 + 2 * octave + ((size >> (octave - 1)) & 1);
}

/** Texels of planes (h, w), or of lines (1, w), that are coded where `seen`; with a border in which all is 0. */
class Texels {
  constructor({ seen, h, w }) {
    Object.assign(this, { seen, h, w });
    this.stride = w + 2 * PAD;
    this.size = (h + 2 * PAD) * this.stride;
    this.passes = h > 1 ? PASSES.plane : PASSES.line;
    this.first = this.places(0, 0, FIRST);
    /** by stride and pass */
    this.later = STRIDES.map((s) => this.passes.map(({ odd }) => this.places(s * odd[0], s * odd[1], 2 * s)));
    this.near = STRIDES.map((s) => this.passes.map((pass) => this.offsets(pass.near, s)));
    this.far = STRIDES.map((s) => this.passes.map((pass) => this.offsets(pass.far, s)));
  }

  /** Where the seen texels of some rows and columns are, row by row. */
  places(top, left, step) {
    const places = [];
    for (let y = top; y < this.h; y += step) {
      const row = (y + PAD) * this.stride + PAD;
      for (let x = left, from = y * this.w; x < this.w; x += step) if (this.seen[from + x]) places.push(row + x);
    }
    return Int32Array.from(places);
  }

  offsets(list, stride) {
    return Int32Array.from(list, ([y, x]) => stride * (y * this.stride + x));
  }

  /** k components, all 0. */
  room(k) {
    return { texels: this, k, values: new Int16Array(k * this.size) };
  }
}

/** A copy of one component without its border. */
function copyParts({ texels: { h, w, size, stride }, values }, component, into, at) {
  for (let y = 0; y < h; ++y, at += w) {
    const from = component * size + (y + PAD) * stride + PAD;
    into.set(values.subarray(from, from + w), at);
  }
}

const PIECE = {
  places: new Int32Array(CODE.piece), expected: new Int16Array(CODE.piece), contexts: new Uint8Array(CODE.piece),
  numbers: new Int16Array(CODE.piece),
};

/** Takes what is coded at some places of each component, piece by piece; `look` fills in what is expected there. */
function takeAll({ texels, k, values }, places, tables, coder, look) {
  const { contexts, expected, numbers } = PIECE;
  const all = k * places.length;
  let [component, next] = [0, 0];
  for (let done = 0; done < all; ) {
    const n = Math.min(CODE.piece, all - done);
    for (let filled = 0; filled < n; ) {
      const some = Math.min(n - filled, places.length - next);
      const base = component * texels.size;
      for (let i = 0; i < some; ++i) PIECE.places[filled + i] = base + places[next + i];
      look(filled, filled + some, component);
      filled += some;
      next += some;
      if (next === places.length) [component, next] = [component + 1, 0];
    }
    coder.piece(tables, contexts, 0, n, numbers);
    let beyond = 0;
    for (let i = 0; i < n; ++i) {
      const value = expected[i] + PARTS * numbers[i];
      beyond |= (value + MOST_PARTS) | (MOST_PARTS - value);
      values[PIECE.places[i]] = value;
    }
    if (beyond < 0) throw new CodeError("a level that is out of range");
    done += n;
  }
}

function decodeGroups(groups, tables, coder, side) {
  const { k } = groups[0];
  const pulls = new Int8Array(side.buffer, side.byteOffset + groups.length * k);
  const pullsOf = (component) => (k === 4 && component > 0 ? PULLS : 0); // density's are first, where both kinds are there
  groups.forEach((group, g) => {
    const spreads = side.subarray(g * k, (g + 1) * k);
    if (spreads.some((spread) => spread > LIMITS.length)) throw new CodeError("a spread that is out of range");
    takeAll(group, group.texels.first, tables, coder, (from, to, component) => {
      PIECE.expected.fill(0, from, to);
      PIECE.contexts.fill(spreads[component], from, to);
    });
  });
  let at = 0;
  STRIDES.forEach((_, s) => {
    for (const passes of [PASSES.plane, PASSES.line]) {
      passes.forEach((_, pass) => {
        for (const group of groups) {
          const { texels, values } = group;
          if (texels.passes !== passes) continue;
          const [near, far] = [texels.near[s][pass], texels.far[s][pass]];
          takeAll(group, texels.later[s][pass], tables, coder, (from, to, component) => {
            const own = at + pullsOf(component);
            predict(values, near, far, pulls[own], pulls[own + 1], from, to);
          });
        }
        at += 2;
      });
    }
  });
}

/** Of the texels from..to of a piece: what is expected there and in which context. */
function predict(values, near, far, nearPull, farPull, from, to) {
  const { places, expected, contexts } = PIECE;
  const [n0, n1, n2, n3] = near;
  const [f0, f1, f2, f3, f4, f5, f6, f7] = far;
  for (let i = from; i < to; ++i) {
    const at = places[i];
    const a = values[at + n0];
    const b = values[at + n1];
    const c = values[at + n2];
    const d = values[at + n3];
    const p = values[at + f0];
    const q = values[at + f1];
    const r = values[at + f2];
    const s = values[at + f3];
    const t = values[at + f4];
    const u = values[at + f5];
    const v = values[at + f6];
    const w = values[at + f7];
    const sum = Math.imul(2 * nearPull, a + b + c + d) + Math.imul(farPull, p + q + r + s + t + u + v + w);
    const e = Math.max(-MOST_EXPECTED, Math.min(MOST_EXPECTED, (sum + 256) >> 9));
    const closest = Math.abs(a - e) + Math.abs(b - e) + Math.abs(c - e) + Math.abs(d - e);
    const farther =
      Math.abs(p - e) + Math.abs(q - e) + Math.abs(r - e) + Math.abs(s - e) +
      Math.abs(t - e) + Math.abs(u - e) + Math.abs(v - e) + Math.abs(w - e);
    expected[i] = e;
    contexts[i] = limitsUpTo((closest << 2) + farther);
  }
}

/** How many of LIMITS are at most so much: there are two to an octave. */
function limitsUpTo(spread) {
  const first = 2 * (31 - Math.clz32(spread)) - 7;
  if (first < 1) return 0;
  if (first >= LIMITS.length) return LIMITS.length;
  return first + +(spread >= LIMITS[first]);
}

// -- empty space: see cells.py ------------------------------------------------------------------------------------------

const CELL_BLOCK = 8;

/** Bytes 0 or 1 of cells (Z, Y, X), of which those in `blocks` (a byte each, shape `coarse`) are coded; null: all. */
function decodeWaves([Z, Y, X], blocks, coarse, coder) {
  const [slice, row] = [(Y + 2) * (X + 2), X + 2];
  const padded = new Uint8Array((Z + 2) * slice);
  const tables = new Tables(new Int32Array(1024).fill(8), 2);
  const { places, ends } = inWaves([Z, Y, X], blocks, coarse);
  const most = ends.reduce((longest, end, i) => Math.max(longest, end - (ends[i - 1] ?? 0)), 0);
  const [contexts, bits] = [new Uint16Array(most), new Uint8Array(most)];
  let from = 0;
  for (const end of ends) {
    for (let i = from; i < end; ++i) {
      const at = places[i];
      const above = at - row;
      const below = at - slice;
      contexts[i - from] =
        padded[at - 1] | (padded[above] << 1) | (padded[below] << 2) | (padded[above - 1] << 3) | (padded[above + 1] << 4) |
        (padded[below - 1] << 5) | (padded[below + 1] << 6) | (padded[below - row] << 7) | (padded[below + row] << 8);
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
  const { columns, slabs } = shadows(occupancy.shape, cells);
  return modes.map(([u, v, w], mode) => {
    const plane = { seen: new Uint8Array(grid[v] * grid[u]), h: grid[v], w: grid[u] };
    const line = { seen: new Uint8Array(grid[w]), h: 1, w: grid[w] };
    reads[v].forEach(([top, bottom], cv) => {
      for (let y = top; y <= bottom; ++y) {
        reads[u].forEach(([left, right], cu) => {
          if (columns[mode][cv * reads[u].length + cu]) plane.seen.fill(1, y * plane.w + left, y * plane.w + right + 1);
        });
      }
    });
    slabs[w].forEach((any, cw) => any && line.seen.fill(1, reads[w][cw][0], reads[w][cw][1] + 1));
    return [plane, line];
  });
}

/** Which columns along z, y and x, and which slabs across x, y and z, hold any occupied cell. */
function shadows([Z, Y, X], cells) {
  const [xy, xz, yz] = [new Uint8Array(Y * X), new Uint8Array(Z * X), new Uint8Array(Z * Y)];
  for (let z = 0; z < Z; ++z) {
    for (let y = 0; y < Y; ++y) {
      const start = (z * Y + y) * X;
      const present = cells.subarray(start, start + X);
      const first = present.indexOf(1);
      if (first < 0) continue;
      yz[z * Y + y] = 1;
      for (let x = first, last = present.lastIndexOf(1); x <= last; ++x) {
        const cell = cells[start + x];
        xy[y * X + x] |= cell;
        xz[z * X + x] |= cell;
      }
    }
  }
  const slabs = [new Uint8Array(X), new Uint8Array(Y), new Uint8Array(Z)];
  xy.forEach((any, i) => {
    slabs[0][i % X] |= any;
    slabs[1][Math.floor(i / X)] |= any;
  });
  yz.forEach((any, i) => (slabs[2][Math.floor(i / Y)] |= any));
  return { columns: [xy, xz, yz], slabs };
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
    this.texels = null;
    this.groups = null;
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
    this.texels = seenTexels(header, present).flat().map((seen) => new Texels(seen));
    const occupancy = present && { cells: header.occupancy.shape, present, box: header.occupancy.box };
    return { decoder, occupancy };
  }

  /**
   * The block of 0-based `rank`, from its length on, without its checksum; ranks come in order, after `shared`.
   * {density: per mode [plane, line] or null, appearance: per mode [3 planes, 3 lines] or null, as Int16Array of parts;
   *  steps: Float32Array of each plane and line, density's mode by mode, then appearance's: 3 planes, 3 lines, ...;
   *  basis: Float32Array (3, 3, 27) or null, rankScales: Float32Array or null}
   */
  rank(block, rank) {
    const { header, texels } = this;
    const kind = header.tail && rank >= header.tail.after ? header.tail.kind : "whole";
    const hasDensity = kind !== "appearance";
    const hasAppearance = kind !== "density";
    const k = hasDensity + 3 * hasAppearance;
    if (this.groups?.[0].k !== k) this.groups = texels.map((some) => some.room(k));
    const { groups } = this;
    const basisSize = 2 * 9 * 27 * hasAppearance;
    const scalesSize = header.affine ? 8 * hasDensity + 216 * hasAppearance : 0;
    const plainSize = basisSize + scalesSize + 4 * 6 * k;
    const lanes = lanesFor(plainSize);
    const rest = Math.max(plainSize - 2 * lanes, 0);
    const sideEnd = 4 + 6 * k + PULLS * (hasDensity + hasAppearance);
    const coder = new RansDecoder(block.subarray(sideEnd + rest), lanes);
    decodeGroups(groups, this.tables, coder, block.subarray(4, sideEnd));
    const plain = joined(coder.carried().subarray(0, plainSize - rest), block.subarray(sideEnd, sideEnd + rest));
    const steps = singleFloats(plain.subarray(basisSize + scalesSize));
    if (!steps.every((step) => step > 0 && step < Infinity)) throw new CodeError("a step that is not above 0");
    const taken = (first, count) => [0, 1, 2].map((mode) => [groups[2 * mode], groups[2 * mode + 1]].map((group) => {
      const { h, w } = group.texels;
      const parts = new Int16Array(count * h * w);
      for (let c = 0; c < count; ++c) copyParts(group, first + c, parts, c * h * w);
      return parts;
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
