"""What all ranks of a model file share, between its header and its first rank: the decoder, and which space is empty.

In files of half or single precision these are the decoder's arrays as such, then the cells as bits, deflated where that
is shorter. In compact files the decoder's matrices are in steps, too (``rounding.decoder_exponents``), and they and the
cells are coded by ``entropy.py``.
"""

import math
import zlib

import numpy as np

from tslim.errors import ModelFileError
from tslim.model import cells
from tslim.model.entropy import N_SYMBOLS, Decoder, Encoder, Tables, lanes_for
from tslim.model.header import ModelHeader
from tslim.model.layout import DTYPES, RankLayout, to_bytes
from tslim.model.rounding import decoder_exponents
from tslim.model.state import FieldState

MOST_CELLS = 2**28
"""of an occupancy grid: more than 640³"""
FREE_CELLS = 2**24
"""that an occupancy grid may have, however few bytes it is coded in: 256³"""
CELLS_PER_BYTE = 2**14
"""that it may have beyond that, for each byte"""
FREE_WEIGHTS, WEIGHTS_PER_BYTE = 2**20, 2**6
"""The same of a decoder's numbers in a compact file."""


def encode_shared(state: FieldState, layout: RankLayout) -> tuple[bytes, dict | None]:
    """The bytes, and what a header says of the occupancy, beside its shape and box. Raises ``ModelFileError``."""
    if state.occupancy is not None and (state.occupancy.ndim != 3 or not 0 < state.occupancy.size <= MOST_CELLS):
        raise ModelFileError(f"occupancy has shape {state.occupancy.shape}; at most {MOST_CELLS} cells are accepted")
    if layout.precision == "compact":
        return _encode_coded(state), None if state.occupancy is None else {"coding": "waves"}
    decoder = b"".join(to_bytes(a, layout.dtype, f"decoder array {name}") for name, a in state.decoder.items())
    if state.occupancy is None:
        return decoder, None
    packed, coding = np.packbits(state.occupancy.astype(bool).ravel()).tobytes(), "bits"
    deflated = zlib.compress(packed, 9)
    if len(deflated) < len(packed):
        packed, coding = deflated, "deflate"
    return decoder + packed, {"coding": coding, "bytes": len(packed)}


def decode_shared(data: bytes, header: ModelHeader) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The decoder's arrays by name, and bool cells. Raises ``ValueError`` for what ``encode_shared`` never makes."""
    if header.occupancy_coding == "waves":
        return _decode_coded(data, header)
    dtype, at, decoder = DTYPES[header.precision], 0, {}
    for name, shape in header.decoder.items():
        n = math.prod(shape)
        decoder[name] = np.frombuffer(data, dtype, n, at).astype(np.float32).reshape(shape)
        at += n * dtype.itemsize
    if header.occupancy is None:
        return decoder, None
    n, bits = math.prod(header.occupancy), data[at:]
    if header.occupancy_coding == "deflate":
        bits = _inflate(bits, -(-n // 8))
    if len(bits) != -(-n // 8):
        raise ValueError("the occupancy grid has the wrong length")
    return decoder, np.unpackbits(np.frombuffer(bits, np.uint8), count=n).astype(bool).reshape(header.occupancy)


def _inflate(data: bytes, n_bytes: int) -> bytes:
    """At most one byte more than expected, however much the data would grow to."""
    try:
        return zlib.decompressobj().decompress(data, n_bytes + 1)
    except zlib.error as error:
        raise ValueError("the occupancy grid cannot be unpacked") from error


def _encode_coded(state: FieldState) -> bytes:
    """Plain numbers, of which the coder's lanes carry the first: columns' exponents (i8) or half precision, array by
    array. Coded: the levels of matrices; the cells."""
    plain, levels, coder = b"", [], Encoder()
    for name, array in state.decoder.items():
        if array.ndim == 2:
            exponents = decoder_exponents(array, name)
            plain += exponents.tobytes()
            levels.append(np.rint(np.ldexp(array.astype(np.float64), -exponents.astype(int))).astype(np.int64).ravel())
        else:
            plain += to_bytes(array, DTYPES["compact"], f"decoder array {name}")
    tables = _tables(len(levels))
    for i, some in enumerate(levels):
        coder.add(tables, np.full(some.size, i), some)
    if state.occupancy is not None:
        cells.encode(state.occupancy.astype(bool), coder)
    lanes = lanes_for(len(plain))
    return plain[2 * lanes :] + coder.finish(plain[: 2 * lanes], lanes)


def _decode_coded(data: bytes, header: ModelHeader) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    matrices = [shape for shape in header.decoder.values() if len(shape) == 2]
    sizes = [shape[1] if len(shape) == 2 else 2 * math.prod(shape) for shape in header.decoder.values()]
    lanes = lanes_for(sum(sizes))
    rest = max(sum(sizes) - 2 * lanes, 0)
    coder, tables = Decoder(data[rest:], lanes), _tables(len(matrices))
    levels = [coder.take(tables, np.full(math.prod(shape), i)).reshape(shape) for i, shape in enumerate(matrices)]
    occupancy = None if header.occupancy is None else cells.decode(header.occupancy, coder)
    plain = coder.carried()[: sum(sizes) - rest] + data[:rest]
    decoder, at, some = {}, 0, iter(levels)
    for (name, shape), size in zip(header.decoder.items(), sizes, strict=True):
        if len(shape) == 2:
            exponents = np.frombuffer(plain, np.int8, size, at).astype(int)
            decoder[name] = np.ldexp(next(some).astype(np.float32), exponents)
        else:
            values = np.frombuffer(plain, DTYPES["compact"], size // 2, at)
            decoder[name] = values.astype(np.float32).reshape(shape)
        at += size
    return decoder, occupancy


def _tables(n: int) -> Tables:
    """Of so many matrices, each a context of its own."""
    return Tables(np.full((max(n, 1), N_SYMBOLS), 8))
