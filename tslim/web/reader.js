// Reads a model file (tslim/model/model_file.py) as its bytes arrive, in a browser: header, what all ranks share, then
// rank after rank, whether numbers stand in it as they are or coded (decode.js). No more of the file is held than the
// rank that is being read.

class ModelError extends Error {}

const MAGIC = [0x93, 0x54, 0x53, 0x4c, 0x49, 0x4d, 0x0d, 0x0a];
const N_FEATURES = 27;
const SCALES_WIDTH = 56;
const COMPACT_VERSION = 5;
const MOST_HEADER = 4_000_000;
const MOST_SIDE = 65_536;
const PLANE_AXES = [[0, 1], [0, 2], [1, 2]];
const LINE_AXES = [2, 1, 0];

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; ++k) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = -1;
  for (let i = 0; i < bytes.length; ++i) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Bytes of an async iterator of Uint8Array, in the pieces that are asked for. */
class Bytes {
  constructor(source) {
    this.source = source[Symbol.asyncIterator]();
    this.pieces = [];
    this.held = 0;
    this.read = 0;
  }

  /** The next n bytes, in memory of their own; null if the source ends before. */
  async take(n) {
    while (this.held < n) {
      const { value, done } = await this.source.next();
      if (done) return null;
      this.pieces.push(value);
      this.held += value.length;
    }
    const taken = new Uint8Array(n);
    for (let at = 0; at < n; ) {
      const piece = this.pieces[0];
      const part = piece.subarray(0, n - at);
      taken.set(part, at);
      at += part.length;
      if (part.length === piece.length) this.pieces.shift();
      else this.pieces[0] = piece.subarray(part.length);
    }
    this.held -= n;
    this.read += n;
    return taken;
  }

  /** Tells the source that no more is wanted. */
  async stop() {
    await this.source.return?.();
  }
}

/** What zlib deflated, if it is at most so long. */
async function inflate(bytes, most, what) {
  const wrong = new ModelError(`the model is damaged: ${what} cannot be unpacked`);
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const pieces = [];
  let length = 0;
  for (;;) {
    const { value, done } = await reader.read().catch(() => {
      throw wrong;
    });
    if (done) return joined(...pieces);
    pieces.push(value);
    length += value.length;
    if (length > most) throw wrong;
  }
}

const SINGLE = new Float32Array(1);
const SINGLE_BITS = new Uint32Array(SINGLE.buffer);

/** The nearest number in half precision; what is too large becomes the largest. */
function toHalf(value) {
  SINGLE[0] = Math.max(-65504, Math.min(65504, value));
  const bits = SINGLE_BITS[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 255) - 112;
  let fraction = bits & 0x7fffff;
  if (exponent <= 0) {
    if (exponent < -10) return sign;
    fraction = (fraction | 0x800000) >>> (1 - exponent);
    return sign | ((fraction + 0xfff + ((fraction >>> 13) & 1)) >>> 13);
  }
  return sign | (((exponent << 23) + fraction + 0xfff + ((fraction >>> 13) & 1)) >>> 13);
}

/** Numbers of a file as Float32Array. */
function floats(bytes, kind) {
  return kind === "float32" ? singleFloats(bytes) : halfFloats(bytes);
}

/** Numbers of a file as half precision (Uint16Array). */
function halves(bytes, kind) {
  return kind === "float32" ? Uint16Array.from(singleFloats(bytes), toHalf) : new Uint16Array(bytes.slice().buffer);
}

function product(numbers) {
  return numbers.reduce((a, b) => a * b, 1);
}

function requireSides(values, low, n) {
  const good = Array.isArray(values) && values.length <= 8 && (n === undefined || values.length === n) &&
    values.every((v) => Number.isInteger(v) && v >= low && v <= MOST_SIDE);
  if (!good) throw new ModelError("the model's header makes no sense: a shape is impossible");
  return values;
}

async function readHeader(bytes) {
  const prelude = await bytes.take(20);
  if (!prelude) throw new ModelError("the model is cut short: it ends within its header");
  if (!MAGIC.every((byte, i) => prelude[i] === byte)) throw new ModelError("this is not a tslim model file");
  const view = new DataView(prelude.buffer);
  const [version, length, checksum] = [8, 12, 16].map((at) => view.getUint32(at, true));
  if (![1, 2, COMPACT_VERSION].includes(version)) {
    throw new ModelError(`this is a model file of version ${version}; this page reads versions 1, 2 and ${COMPACT_VERSION}`);
  }
  if (length > MOST_HEADER) throw new ModelError("the model is damaged: its header is too long");
  const text = await bytes.take(length);
  if (!text) throw new ModelError("the model is cut short: it ends within its header");
  if (crc32(text) !== checksum) throw new ModelError("the model is damaged: its header does not match its checksum");
  const plain = version === COMPACT_VERSION ? await inflate(text, MOST_HEADER, "its header") : text;
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(plain));
  } catch {
    throw new ModelError("the model's header makes no sense");
  }
  return checkedHeader(header, version === COMPACT_VERSION);
}

function checkedHeader(header, isCompact) {
  requireSides(header.grid, 2, 3);
  if (!["box", "ndc", "contracted"].includes(header.space)) {
    throw new ModelError(`the model lies in a space ${header.space} that this page does not know`);
  }
  if (!("cube" in header)) header.space = "box";
  if (!(isCompact ? ["compact"] : ["float16", "float32"]).includes(header.dtype)) {
    throw new ModelError(`unknown precision ${header.dtype}`);
  }
  if (!["mlp", "sh"].includes(header.config?.decoder)) throw new ModelError("the model's decoder is unknown");
  for (const shape of Object.values(header.decoder)) requireSides(shape, 0);
  if (header.occupancy) requireSides(header.occupancy.shape, 1, 3);
  const { blocks, psnr } = header.table ?? { blocks: [], psnr: [] };
  if (![blocks, psnr].every((list) => Array.isArray(list) && list.every((v) => v === null || Number.isFinite(v)))) {
    throw new ModelError("the model's header makes no sense: its table of sizes");
  }
  return header;
}

/** How many numbers planes and lines have, per mode; and which kinds the block of 0-based `rank` holds. */
function blockLayout(header, rank) {
  const modes = PLANE_AXES.map(([u, v], m) => [header.grid[u] * header.grid[v], header.grid[LINE_AXES[m]]]);
  const tail = header.tail && rank >= header.tail.after ? header.tail.kind : "whole";
  const [density, appearance] = [tail !== "appearance", tail !== "density"];
  const numbers = modes.reduce((sum, [plane, line]) => sum + (plane + line) * (density + 3 * appearance), 0);
  return { modes, density, appearance, numbers };
}

/** What follows the header where numbers stand as they are (versions 1 and 2). Both kinds give the same. */
class PlainBlocks {
  constructor(header) {
    this.header = header;
    this.itemSize = header.dtype === "float32" ? 4 : 2;
    this.prefix = 0; // bytes that say how long a block is
  }

  get sharedLength() {
    const { decoder, occupancy } = this.header;
    const numbers = Object.values(decoder).reduce((sum, shape) => sum + product(shape), 0);
    return numbers * this.itemSize + (occupancy ? occupancy.bytes : 0);
  }

  /** {decoder: Float32Array by name, occupancy: {cells: [z, y, x], present: a byte for each, 0 or 1, box} or null} */
  async shared(raw) {
    const { header, itemSize } = this;
    const decoder = {};
    let at = 0;
    for (const [name, shape] of Object.entries(header.decoder)) {
      const size = product(shape) * itemSize;
      decoder[name] = floats(raw.subarray(at, (at += size)), header.dtype);
    }
    if (!header.occupancy) return { decoder, occupancy: null };
    const { shape, coding, box } = header.occupancy;
    const wanted = Math.ceil(product(shape) / 8);
    const bits = coding === "deflate" ? await inflate(raw.subarray(at), wanted, "its empty space") : raw.subarray(at);
    if (bits.length !== wanted) throw new ModelError("the model is damaged: its occupancy grid has the wrong length");
    const present = new Uint8Array(product(shape));
    for (let i = 0; i < present.length; ++i) present[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1;
    return { decoder, occupancy: { cells: shape, present, box } };
  }

  length(rank) {
    const { density, appearance, numbers } = blockLayout(this.header, rank);
    const rankScales = this.header.affine ? 2 * density + 2 * N_FEATURES * appearance : 0;
    return (numbers + 9 * N_FEATURES * appearance) * this.itemSize + 4 * rankScales;
  }

  /** {density: per mode [plane, line], appearance: per mode [3 planes, 3 lines], both halves; basis, rankScales} */
  rank(block, rank) {
    const { header, itemSize } = this;
    const layout = blockLayout(header, rank);
    let at = 0;
    const next = (n, convert) => convert(block.subarray(at, (at += n * itemSize)), header.dtype);
    const found = { density: null, appearance: null, basis: null, rankScales: null };
    if (layout.density) found.density = layout.modes.map(([plane, line]) => [next(plane, halves), next(line, halves)]);
    if (layout.appearance) {
      found.appearance = layout.modes.map(([plane, line]) => [next(3 * plane, halves), next(3 * line, halves)]);
      found.basis = next(9 * N_FEATURES, floats);
    }
    if (header.affine) found.rankScales = singleFloats(block.subarray(at));
    return found;
  }
}

/** What follows the header of a compact file. */
class CodedBlocks {
  constructor(header) {
    this.header = header;
    this.compact = new CompactDecoder(header);
    this.prefix = 4;
    const n = header.shared_bytes;
    const sane = Number.isInteger(n) && n >= 0 &&
      Object.values(header.decoder).reduce((sum, shape) => sum + product(shape), 0) <= Math.max(2 ** 20, 64 * n) &&
      product(header.occupancy?.shape ?? []) <= Math.min(Math.max(2 ** 24, 2 ** 14 * n), 2 ** 28);
    if (!sane) throw new ModelError("the model's header makes no sense: it claims more than the file could hold");
  }

  get sharedLength() {
    return this.header.shared_bytes;
  }

  async shared(raw) {
    return this.compact.shared(raw);
  }

  /** As the block's first bytes say; -1 where no block is so long. */
  length(rank, prefix) {
    const length = new DataView(prefix.buffer, prefix.byteOffset).getUint32(0, true);
    const n = blockLayout(this.header, rank).numbers;
    const free = n <= 2 ** 24 && n * (rank + 1) <= 2 ** 26;
    return length > 2 ** 16 + 8 * n || !(free || n <= 512 * length) ? -1 : length;
  }

  rank(block, rank) {
    const { density, appearance, steps, basis, rankScales } = this.compact.rank(block, rank);
    let at = 0;
    const scaled = (count) => (mode) => mode.map((parts) => timesSteps(parts, steps.subarray(at, (at += count))));
    return { density: density?.map(scaled(1)) ?? null, appearance: appearance?.map(scaled(3)) ?? null, basis, rankScales };
  }
}

/** Parts of steps, of one component after the other, as numbers in half precision. */
function timesSteps(parts, steps) {
  const out = new Uint16Array(parts.length);
  const size = parts.length / steps.length;
  steps.forEach((step, k) => {
    const known = new Uint16Array(2 * MOST_PARTS + 1); // as they come up; 0 is what is not known yet, or rounds to 0
    for (let i = k * size; i < (k + 1) * size; ++i) {
      const part = parts[i];
      if (part !== 0) out[i] = known[part + MOST_PARTS] || (known[part + MOST_PARTS] = toHalf((part / PARTS) * step));
    }
  });
  return out;
}

async function readShared(bytes, header, blocks) {
  const raw = await bytes.take(blocks.sharedLength);
  if (!raw) throw new ModelError("the model is cut short: it ends before its first rank");
  if (crc32(raw) !== header.shared_crc32) throw new ModelError("the model is damaged: its decoder or occupancy");
  const shared = await unspoiled(() => blocks.shared(raw));
  if (!shared) throw new ModelError("the model is damaged: its decoder or occupancy cannot be unpacked");
  return shared;
}

/** What an action comes to; null where the bytes that it unpacks are none that were ever packed. */
async function unspoiled(action) {
  try {
    return await action();
  } catch (error) {
    if (error instanceof CodeError || error instanceof RangeError) return null;
    throw error;
  }
}

/** The next rank's block without its checksum: {block}, or {cut} or {damaged}; {} where the source ends before it. */
async function takeBlock(bytes, blocks, rank) {
  const start = await bytes.take(4 + blocks.prefix);
  if (!start) return bytes.held ? { cut: true } : {};
  const prefix = start.subarray(4);
  const length = blocks.length(rank, prefix);
  if (length < 0) return { damaged: true };
  const rest = await bytes.take(length);
  if (!rest) return { cut: true };
  const block = joined(prefix, rest);
  return new DataView(start.buffer).getUint32(0, true) === crc32(block) ? { block } : { damaged: true };
}

/**
 * Reads a model: yields {header, bytes (before the ranks), decoder, occupancy}, then {rank (from 1), bytes (of the file up to its end), block} for
 * each rank, then perhaps {warning}: a later rank is damaged, or the file ends within one.
 * Throws ModelError where there is not even one rank.
 */
async function* readModel(source) {
  const bytes = new Bytes(source);
  try {
    const header = await readHeader(bytes);
    const blocks = new (header.dtype === "compact" ? CodedBlocks : PlainBlocks)(header);
    const shared = await readShared(bytes, header, blocks);
    yield { header, bytes: bytes.read, ...shared };
    for (let rank = 0; ; ++rank) {
      const { block, cut, damaged } = await takeBlock(bytes, blocks, rank);
      const found = block && (await unspoiled(() => blocks.rank(block, rank)));
      if (found) {
        yield { rank: rank + 1, bytes: bytes.read, block: found };
        continue;
      }
      if (rank === 0) throw new ModelError(block || damaged ? WITHOUT_RANK.damaged : WITHOUT_RANK.cut);
      if (block || damaged) yield { warning: `rank ${rank + 1} of the model is damaged: ranks 1 to ${rank} are shown` };
      else if (cut) yield { warning: `the model is cut short: it ends within rank ${rank + 1}` };
      return;
    }
  } finally {
    await bytes.stop();
  }
}

const WITHOUT_RANK = {
  damaged: "the model is damaged: its first rank does not match its checksum, or cannot be unpacked",
  cut: "the model is cut short: it ends within its first rank",
};
