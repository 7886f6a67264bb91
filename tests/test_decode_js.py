"""The page's decoder of compact files, run under node, gives every number that Python's gives."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.test_model_file import make_state
from tslim.model import model_file
from tslim.model.neighbours import PARTS
from tslim.model.rounding import rounded

DECODER = Path(__file__).parents[1] / "tslim" / "web" / "decode.js"
NODE = shutil.which("node")
RUN = """
const { readFileSync, writeFileSync } = require("fs");
const { inflateSync } = require("zlib");
const CompactDecoder = new Function(readFileSync(process.argv[1], "utf8") + "; return CompactDecoder")();
const file = readFileSync(process.argv[2]);
const length = file.readUInt32LE(12);
const header = JSON.parse(inflateSync(file.subarray(20, 20 + length)));
const out = [];
const write = (array) => array && out.push(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
const compact = new CompactDecoder(header);
let at = 20 + length + header.shared_bytes;

const { decoder, occupancy } = compact.shared(file.subarray(20 + length, at));
Object.values(decoder).forEach(write);
if (occupancy) write(occupancy.present);
for (let rank = 0; at < file.length; ++rank) {
  const end = at + 8 + file.readUInt32LE(at + 4);
  const found = compact.rank(file.subarray(at + 4, end), rank);
  for (const kind of [found.density, found.appearance]) if (kind) kind.flat().forEach(write);
  [found.steps, found.basis, found.rankScales].forEach(write);
  at = end;
}
console.error(process.cpuUsage().user / 1e6);
writeFileSync(process.argv[3], Buffer.concat(out));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's decoder cannot be run")


def decoded(path: Path) -> subprocess.CompletedProcess:
    command = [NODE, "-e", RUN, str(DECODER), str(path), str(path.with_suffix(".bin"))]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def expected(state: model_file.StoredState) -> bytes:
    """The same numbers in the same order, as Python reads them."""
    parts = [np.asarray(a, "<f4") for a in state.decoder.values()]
    if state.occupancy is not None:
        parts.append(state.occupancy.astype(np.uint8))
    density_ranks, appearance_ranks = state.separate_ranks or (state.rank, state.rank)
    for rank in range(state.rank):
        steps, used, column = state.steps[rank], [], 0
        for kind, per_rank, held in (("density", 1, density_ranks), ("appearance", 3, appearance_ranks)):
            some = slice(per_rank * rank, per_rank * rank + per_rank)
            for mode in range(3):
                for name in ("planes", "lines"):
                    values = getattr(state, f"{kind}_{name}")[mode][some]
                    for array in values if rank < held else ():
                        parts.append(np.rint(array / steps[column] * PARTS).astype(np.int16))
                        used.append(steps[column])
                        column += 1
                    column += per_rank * (rank >= held)
        parts.append(np.array(used, "<f4"))
        columns = slice(0 if rank < density_ranks else 2, 56 if rank < appearance_ranks else 2)
        if rank < appearance_ranks:
            parts.append(np.asarray(state.basis[:, 3 * rank : 3 * rank + 3], "<f4"))
        if state.rank_scales is not None:
            parts.append(np.asarray(state.rank_scales[rank, columns], "<f4"))
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def smooth_state(**changes) -> model_file.FieldState:
    """Planes that vary from texel to texel as those of a trained field do, a few of them in large numbers."""
    state = make_state(**changes)
    for arrays in (state.density_planes, state.appearance_planes):
        for array in arrays:
            array[...] = np.cumsum(0.1 * array, axis=-1)
            array[0] *= 20
    return state


CASES = {
    "a model": lambda: rounded(smooth_state(rank=3, grid=(25, 18, 31), occupancy=(20, 17, 9))),
    "coarse": lambda: rounded(smooth_state(rank=3, grid=(25, 18, 31), occupancy=(20, 17, 9)), 2.0),
    "no occupancy, no scales": lambda: rounded(smooth_state(rank=2, grid=(9, 8, 7), rank_scales=False, occupancy=None)),
    "more density": lambda: rounded(smooth_state(rank=4, grid=(12, 10, 11)).separate(4, 2)),
    "more appearance": lambda: rounded(smooth_state(rank=4, grid=(12, 10, 11)).separate(1, 4), 0.02),
    "two texels a side": lambda: rounded(make_state(rank=2, grid=(2, 2, 2), occupancy=(1, 1, 1))),
    "a large decoder": lambda: rounded(with_decoder(make_state(rank=1))),
}


def with_decoder(state: model_file.FieldState) -> model_file.FieldState:
    rng = np.random.default_rng(0)
    sizes = {"w1": (150, 40), "b1": (40,), "w2": (40, 3), "b2": (3,)}
    decoder = {name: rng.laplace(0, 0.1, shape).astype(np.float16).astype(np.float32) for name, shape in sizes.items()}
    decoder["w1"][:, 3] = 0
    return dataclasses.replace(state, decoder=decoder)


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_that_of_python(tmp_path, case):
    path = model_file.write(CASES[case](), tmp_path / "a.slim")
    done = decoded(path)
    assert done.returncode == 0, done.stderr
    assert path.with_suffix(".bin").read_bytes() == expected(model_file.read(path))


def test_a_block_that_ends_too_early_is_an_error_that_says_so(tmp_path):
    path = model_file.write(CASES["coarse"](), tmp_path / "a.slim")
    data, header = path.read_bytes(), model_file.read_header(path)
    for n_bytes in (2000, 1700, 100):
        block = data[header.fixed_bytes + 8 : header.fixed_bytes + 8 + n_bytes]
        path.write_bytes(data[: header.fixed_bytes + 4] + len(block).to_bytes(4, "little") + block)
        done = decoded(path)
        assert done.returncode != 0 and ("CodeError" in done.stderr or "RangeError" in done.stderr)
