// Reads a model file (tslim/model/model_file.py) as its bytes arrive, in a browser: header, what all ranks share, then
// rank after rank. No more of the file is held than the rank that is being read.

class ModelError extends Error {}

const MAGIC = [0x93, 0x54, 0x53, 0x4c, 0x49, 0x4d, 0x0d, 0x0a];
const N_FEATURES = 27;
const SCALES_WIDTH = 56;
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

async function inflate(bytes, most) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const out = new Uint8Array(most);
  let at = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return out.subarray(0, at);
    if (at + value.length > most) throw new ModelError("the model is damaged: its occupancy grid is too long");
    out.set(value, at);
    at += value.length;
  }
}

const SINGLE = new Float32Array(1);
const SINGLE_BITS = new Uint32Array(SINGLE.buffer);

function fromHalf(h) {
  const exponent = (h >> 10) & 31;
  const fraction = h & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return h & 0x8000 ? -size : size;
}

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
  if (kind === "float32") return new Float32Array(bytes.slice().buffer);
  return Float32Array.from(new Uint16Array(bytes.slice().buffer), fromHalf);
}

/** Numbers of a file as half precision (Uint16Array). */
function halves(bytes, kind) {
  if (kind !== "float32") return new Uint16Array(bytes.slice().buffer);
  return Uint16Array.from(new Float32Array(bytes.slice().buffer), toHalf);
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
  if (version === 3 || version === 4) {
    throw new ModelError("this is a compact model that browsers cannot unpack: tslim export makes one that they can");
  }
  if (version < 1 || version > 2) {
    throw new ModelError(`this is a model file of version ${version}; this page reads versions 1 and 2`);
  }
  if (length > MOST_HEADER) throw new ModelError("the model is damaged: its header is too long");
  const text = await bytes.take(length);
  if (!text) throw new ModelError("the model is cut short: it ends within its header");
  if (crc32(text) !== checksum) throw new ModelError("the model is damaged: its header does not match its checksum");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(text));
  } catch {
    throw new ModelError("the model's header makes no sense");
  }
  return checkedHeader(header);
}

function checkedHeader(header) {
  requireSides(header.grid, 2, 3);
  if (!["box", "ndc", "contracted"].includes(header.space)) {
    throw new ModelError(`the model lies in a space ${header.space} that this page does not know`);
  }
  if (!("cube" in header)) header.space = "box";
  if (!["float16", "float32"].includes(header.dtype)) throw new ModelError(`unknown precision ${header.dtype}`);
  if (!["mlp", "sh"].includes(header.config?.decoder)) throw new ModelError("the model's decoder is unknown");
  for (const shape of Object.values(header.decoder)) requireSides(shape, 0);
  header.itemSize = header.dtype === "float32" ? 4 : 2;
  return header;
}

/** Decoder arrays by name, and occupancy as {cells: [z, y, x], bits: a byte for 8 cells, box} or null. */
async function readShared(bytes, header) {
  const sizes = Object.values(header.decoder).map((shape) => product(shape) * header.itemSize);
  const occupancy = header.occupancy;
  const raw = await bytes.take(sizes.reduce((a, b) => a + b, 0) + (occupancy ? occupancy.bytes : 0));
  if (!raw) throw new ModelError("the model is cut short: it ends before its first rank");
  if (crc32(raw) !== header.shared_crc32) throw new ModelError("the model is damaged: its decoder or occupancy");
  const decoder = {};
  let at = 0;
  Object.keys(header.decoder).forEach((name, i) => {
    decoder[name] = floats(raw.subarray(at, at + sizes[i]), header.dtype);
    at += sizes[i];
  });
  if (!occupancy) return { decoder, occupancy: null };
  const wanted = Math.ceil(product(requireSides(occupancy.shape, 1, 3)) / 8);
  const packed = raw.subarray(at);
  const bits = occupancy.coding === "deflate" ? await inflate(packed, wanted) : packed;
  if (bits.length !== wanted) throw new ModelError("the model is damaged: its occupancy grid has the wrong length");
  return { decoder, occupancy: { cells: occupancy.shape, bits, box: occupancy.box } };
}

/** Sizes of the parts of a rank's block, and which of them the block of 0-based `rank` holds. */
function blockLayout(header, rank) {
  const modes = PLANE_AXES.map(([u, v], m) => [header.grid[u] * header.grid[v], header.grid[LINE_AXES[m]]]);
  const tail = header.tail && rank >= header.tail.after ? header.tail.kind : "whole";
  const density = tail !== "appearance";
  const appearance = tail !== "density";
  const numbers = modes.reduce((sum, [plane, line]) => sum + (plane + line) * (density + 3 * appearance), 0);
  const rankScales = header.affine ? 2 * density + 2 * N_FEATURES * appearance : 0;
  const length = (numbers + 9 * N_FEATURES * appearance) * header.itemSize + 4 * rankScales;
  return { modes, density, appearance, rankScales, length };
}

/** A rank's block as {density: per mode [plane, line], appearance: per mode [3 planes, 3 lines], basis, rankScales}. */
function parseBlock(block, header, layout) {
  let at = 0;
  const next = (n, convert) => {
    const part = block.subarray(at, at + n * header.itemSize);
    at += part.length;
    return convert(part, header.dtype);
  };
  const rank = { density: null, appearance: null, basis: null, rankScales: null };
  if (layout.density) rank.density = layout.modes.map(([plane, line]) => [next(plane, halves), next(line, halves)]);
  if (layout.appearance) {
    rank.appearance = layout.modes.map(([plane, line]) => [next(3 * plane, halves), next(3 * line, halves)]);
    rank.basis = next(9 * N_FEATURES, floats);
  }
  if (layout.rankScales) rank.rankScales = floats(block.subarray(at), "float32");
  return rank;
}

/**
 * Reads a model: yields {header, decoder, occupancy}, then {rank (from 1), bytes (of the file up to its end), block} for
 * each rank up to `most(header)`, then perhaps {warning}: a later rank is damaged, or the file ends within one.
 * Throws ModelError where there is not even one rank.
 */
async function* readModel(source, most) {
  const bytes = new Bytes(source);
  const header = await readHeader(bytes);
  yield { header, ...(await readShared(bytes, header)) };
  const wanted = most(header);
  for (let rank = 0; rank < wanted; ++rank) {
    const layout = blockLayout(header, rank);
    const whole = await bytes.take(4 + layout.length);
    const damaged = whole && new DataView(whole.buffer).getUint32(0, true) !== crc32(whole.subarray(4));
    if (!whole && rank === 0) throw new ModelError("the model is cut short: it ends within its first rank");
    if (damaged && rank === 0) throw new ModelError("the model is damaged: its first rank does not match its checksum");
    if (damaged) yield { warning: `rank ${rank + 1} of the model is damaged: ranks 1 to ${rank} are shown` };
    if (!whole && bytes.held) yield { warning: `the model is cut short: it ends within rank ${rank + 1}` };
    if (!whole || damaged) break;
    yield { rank: rank + 1, bytes: bytes.read, block: parseBlock(whole.subarray(4), header, layout) };
  }
  await bytes.stop();
}
