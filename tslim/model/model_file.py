"""The model file: ranks in order, so that the first bytes of a model are a smaller model.

Layout, all numbers little-endian::

    magic      8 bytes   93 'TSLIM' 0D 0A
    version    u32       1; 2 where the ranks of density and appearance differ; 3 where the precision is compact
    length     u32       bytes of the header
    checksum   u32       crc32 of the header
    header     json, utf-8: config (without max_rank), box, grid, near, far, space, cube, background, dtype (the
               precision), affine, decoder (shapes by name), occupancy (shape, box, coding, bytes), shared_crc32,
               metadata; tail (kind, after) where the ranks differ
    shared     the decoder's arrays in the header's order, then the occupancy bits
    rank 1     crc32 of the block (u32), then the block; see ``RankLayout``, for compact files ``CompactLayout``
    rank 2     ...

Nothing before the ranks depends on how many follow, nor any rank on those after it: a file cut after r ranks *is*,
byte for byte, the file that ``write`` makes of the model slimmed to r. The number of ranks is derived from the bytes
present, and what is left of a rank that was cut through is ignored. Where there is a tail, the blocks after the first
``tail.after`` hold only density or only appearance, which has more ranks; cut below that, it is a model, too.

Factors, basis and decoder are stored in half precision unless asked otherwise (round to nearest even), the affine rows
in single. A compact file holds planes and lines in steps of 8 bits, coded; see ``compact.py``. There is no pickle.
"""

import bisect
import dataclasses
import itertools
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tslim import files
from tslim.config import Precision
from tslim.errors import ConfigError, ModelFileError
from tslim.model import compact
from tslim.model.header import CHECKSUM, MAX_CELLS, ModelHeader, decode_header, encode_header
from tslim.model.state import (
    AFFINE_WIDTH,
    DTYPES,
    LINE_AXES,
    N_FEATURES,
    N_STEPS,
    PLANE_AXES,
    FieldState,
    RankLayout,
    lesser,
    require_rank,
    to_bytes,
)

__all__ = [
    "FieldState", "ModelHeader", "Precision", "convert", "fit", "rank_that_fits", "read", "read_header", "size_of",
    "sizes", "write",
]  # fmt: skip


def convert(state: FieldState, precision: Precision | None = None, rounding: float | None = None) -> FieldState:
    """The state as it is to be written: in its own precision if None, else in that one.

    Args:
        rounding: how coarse the steps of a compact file are: what one of them changes in the features. Those that the
            state has if None, else ``compact.ROUNDING``.

    Raises:
        ConfigError: a rounding that is out of range, or for another precision.
        ModelFileError: a compact state is wanted of arrays that do not fit together, or of values that are not finite.
    """
    precision = precision or state.precision
    if precision not in DTYPES:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(DTYPES)}")
    if precision != "compact":
        if rounding is not None:
            raise ConfigError(f"rounding is for files of precision compact, not {precision}")
        return dataclasses.replace(state, precision=precision, steps=None)
    if rounding is None and state.steps is not None:
        return state
    return compact.rounded(state, compact.ROUNDING if rounding is None else rounding)


def fit(
    state: FieldState, max_mb: float, precision: Precision | None = None, rounding: float | None = None
) -> FieldState:
    """The state as ``convert`` makes it, with the most ranks whose file has at most ``max_mb`` million bytes.

    A compact file takes as coarse a rounding of ``compact.ROUNDINGS`` as all ranks need to fit, unless one is given.
    Raises ``ConfigError`` if rank 1 is too large.
    """
    if (precision or state.precision) != "compact" or rounding is not None:
        candidate = convert(state, precision, rounding)
    elif state.steps is not None and size_of(state) <= _bytes(max_mb):
        return state
    else:
        tried = {}

        def fits(rounding: float) -> bool:
            tried[rounding] = convert(state, "compact", rounding)
            return size_of(tried[rounding]) <= _bytes(max_mb)

        first = bisect.bisect_left(compact.ROUNDINGS, True, key=fits)
        if first < len(compact.ROUNDINGS):
            return tried[compact.ROUNDINGS[first]]
        candidate = tried[compact.ROUNDINGS[-1]]
    return candidate.slim(rank_that_fits(candidate, max_mb))


def write(state: FieldState, path: str | Path) -> Path:
    """Writes a model file atomically, in the state's precision: see ``convert``.

    Raises:
        ModelFileError: the state's arrays do not fit together, or hold values that the precision cannot (NaN included).
        RunFolderError: the file cannot be written.
    """
    layout = _layout(state)
    head = _head(state, layout)
    with files.replacing(path) as temporary, open(temporary, "wb") as out:
        out.write(head)
        for rank in range(state.rank):
            block = layout.pack(state, rank)
            out.write(CHECKSUM.pack(zlib.crc32(block)))
            out.write(block)
    return Path(path)


def read(path: str | Path, *, rank: int | None = None) -> FieldState:
    """Reads the first ``rank`` ranks of a model file (all that are whole if None), as float32.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: not a model file, of another version, damaged, or cut before the end of its first rank.
        ConfigError: the file holds fewer ranks than asked for.
    """
    path = Path(path)
    with _open(path) as source:
        header = decode_header(source, path)
        rank = header.rank if rank is None else rank
        require_rank(rank, header.rank, f"{path} holds")
        state = _empty_state(header, rank)
        _read_shared(source, header, state, path)
        layout = _layout(state)
        at = header.fixed_bytes
        for r, end in enumerate(header.ends[:rank]):
            checksum, block = source.read(CHECKSUM.size), source.read(end - at - CHECKSUM.size)
            at = end
            if checksum != CHECKSUM.pack(zlib.crc32(block)):
                intact = f"; ranks 1 to {r} are intact and can be read" if r else ""
                raise ModelFileError(f"{path} is damaged: rank {r + 1} does not match its checksum{intact}")
            try:
                layout.unpack(block, state, r)
            except (ValueError, OSError, EOFError) as error:
                raise ModelFileError(f"{path} is damaged: rank {r + 1} cannot be unpacked: {error}") from error
    state.spread_affine()
    return state


def read_header(path: str | Path) -> ModelHeader:
    """Reads only the header, and counts the ranks by the file's size. Raises as ``read`` does."""
    path = Path(path)
    with _open(path) as source:
        return decode_header(source, path)


def sizes(state: FieldState) -> list[int]:
    """The exact size in bytes of the file that ``write(state.slim(r))`` makes, for r = 1, 2, ..., R.

    A compact state is coded for it, which takes as long as writing it.
    """
    whole = state.slim(state.rank if state.kept is None else min(state.kept))
    layout = _layout(state)
    ends = itertools.accumulate(CHECKSUM.size + n for n in layout.lengths(state))
    heads = [len(_head(whole, _layout(whole)))] * whole.rank
    if state.kept is not None:
        heads += [len(_head(state, layout))] * (state.rank - whole.rank)
    return [head + end for head, end in zip(heads, ends, strict=True)]


def size_of(state: FieldState) -> int:
    """The exact size in bytes of the file that ``write(state)`` makes."""
    return sizes(state)[-1]


def rank_that_fits(state: FieldState, max_mb: float) -> int:
    """The highest rank whose file has at most ``max_mb`` million bytes; ``ConfigError`` if rank 1 is too large."""
    known, most = sizes(state), _bytes(max_mb)
    rank = sum(size <= most for size in known)
    if rank < 1:
        raise ConfigError(f"no rank fits in {max_mb:g} MB: rank 1 takes {known[0] / 1e6:.3f} MB")
    return rank


def _bytes(mb: float) -> float:
    """Of so many MB, to the byte."""
    return round(mb * 1e6) if math.isfinite(mb) else mb


def _layout(state: FieldState) -> RankLayout:
    return compact.layout_kind(state.precision).of(state)


def _head(state: FieldState, layout: RankLayout) -> bytes:
    """Everything before the ranks."""
    coding, packed = "bits", b""
    if state.occupancy is not None:
        if state.occupancy.ndim != 3 or not 0 < state.occupancy.size <= MAX_CELLS:
            raise ModelFileError(f"occupancy has shape {state.occupancy.shape}; at most {MAX_CELLS} cells are accepted")
        packed = np.packbits(state.occupancy.astype(bool).ravel()).tobytes()
        deflated = zlib.compress(packed, 9)
        if len(deflated) < len(packed):
            coding, packed = "deflate", deflated
    decoder = [to_bytes(a, layout.dtype, f"decoder array {name}") for name, a in state.decoder.items()]
    shared = b"".join(decoder) + packed
    return encode_header(state, layout, coding=coding, packed=packed, shared=shared) + shared


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"no such model file: {path}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _empty_state(header: ModelHeader, rank: int) -> FieldState:
    """A zeroed state with room for ``rank`` ranks, all of which are in the file."""
    grid = header.grid
    planes = [(grid[v], grid[u]) for u, v in PLANE_AXES]
    lines = [grid[w] for w in LINE_AXES]
    return FieldState(
        config=header.config_at(rank),
        box=header.box,
        grid=grid,
        near=header.near,
        far=header.far,
        space=header.space,
        cube=header.cube,
        background=header.background,
        density_planes=[np.zeros((rank, *p), np.float32) for p in planes],
        density_lines=[np.zeros((rank, n), np.float32) for n in lines],
        appearance_planes=[np.zeros((3 * rank, *p), np.float32) for p in planes],
        appearance_lines=[np.zeros((3 * rank, n), np.float32) for n in lines],
        basis=np.zeros((3, 3 * rank, N_FEATURES), np.float32),
        affine=np.zeros((rank, AFFINE_WIDTH), np.float32) if header.affine else None,
        decoder={},
        occupancy_box=header.occupancy_box,
        metadata=header.metadata,
        kept=lesser(header.kept, rank),
        precision=header.precision,
        steps=np.ones((rank, N_STEPS), np.float32) if header.precision == "compact" else None,
    )


def _read_shared(source: BinaryIO, header: ModelHeader, state: FieldState, path: Path) -> None:
    """Reads decoder and occupancy into the state."""
    source.seek(header.shared_at)
    shared = source.read(header.fixed_bytes - header.shared_at)
    if zlib.crc32(shared) != header.shared_crc32:
        raise ModelFileError(f"{path} is damaged: decoder and occupancy do not match their checksum")
    dtype, at = DTYPES[header.precision], 0
    for name, shape in header.decoder.items():
        n = math.prod(shape)
        state.decoder[name] = np.frombuffer(shared, dtype, n, at).astype(np.float32).reshape(shape)
        at += n * dtype.itemsize
    if header.occupancy is not None:
        n = math.prod(header.occupancy)
        bits = shared[at:]
        if header.occupancy_coding == "deflate":
            bits = _inflate(bits, -(-n // 8), path)
        if len(bits) != -(-n // 8):
            raise ModelFileError(f"{path} is damaged: its occupancy grid has the wrong length")
        state.occupancy = np.unpackbits(np.frombuffer(bits, np.uint8), count=n).astype(bool).reshape(header.occupancy)


def _inflate(data: bytes, n_bytes: int, path: Path) -> bytes:
    """At most one byte more than expected, however much the data would grow to."""
    try:
        return zlib.decompressobj().decompress(data, n_bytes + 1)
    except zlib.error as error:
        raise ModelFileError(f"{path} is damaged: its occupancy grid cannot be unpacked") from error
