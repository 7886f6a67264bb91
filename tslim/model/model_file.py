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

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tslim import files
from tslim.config import Precision
from tslim.device import memory
from tslim.errors import ModelFileError
from tslim.model import rank_rows
from tslim.model.compact import layout_of
from tslim.model.header import CHECKSUM, ModelHeader, decode_header, encode_head
from tslim.model.layout import DTYPES, N_STEPS, RankLayout
from tslim.model.rounding import convert
from tslim.model.sizes import fit, rank_that_fits, size_of, sizes
from tslim.model.state import AFFINE_WIDTH, LINE_AXES, N_FEATURES, PLANE_AXES, FieldState, lesser, require_rank
from tslim.model.stored import StoredState, as_stored

__all__ = [
    "FieldState", "ModelHeader", "Precision", "StoredState", "blocks", "convert", "fit", "rank_that_fits", "read",
    "read_header",
    "size_of", "sizes", "write",
]  # fmt: skip


def write(state: FieldState, path: str | Path) -> Path:
    """Writes a model file atomically, in the state's precision: see ``convert``.

    Raises:
        ModelFileError: the state's arrays do not fit together, or hold values that the precision cannot (NaN included).
        RunFolderError: the file cannot be written.
    """
    parts = blocks(state)
    head = next(parts)
    with files.replacing(path) as temporary, open(temporary, "wb") as out:
        out.write(head)
        out.writelines(parts)
    return Path(path)


def blocks(state: FieldState) -> Iterator[bytes]:
    """What ``write`` writes, in parts: everything before the ranks, then rank after rank. Raises as it does."""
    state = as_stored(state)
    layout = layout_of(state)
    yield encode_head(state, layout)
    for rank in range(state.rank):
        block = layout.pack(state, rank)
        yield CHECKSUM.pack(zlib.crc32(block)) + block


def exceeds_half(state: FieldState) -> bool:
    """Whether finite values are too large for half precision: such a model has to be written in single."""
    most = float(np.finfo(np.float16).max)
    factors = [*state.density_planes, *state.density_lines, *state.appearance_planes, *state.appearance_lines]
    return any(
        np.abs(array[np.isfinite(array)]).max(initial=0) > most
        for array in (*factors, state.basis, *state.decoder.values())
    )


def read(path: str | Path, *, rank: int | None = None) -> StoredState:
    """Reads the first ``rank`` ranks of a model file (all that are whole if None), as float32.

    Scales and shifts of ranks that training never rendered, which older files hold as it left them, are put right
    (see ``rank_rows``).

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
        sound = rank_rows.heal_from(header.metadata, header.rank) if header.affine else ()
        # A row that is to be interpolated needs the next sound one, even where its rank is not asked for.
        wanted = min((r for r in sound if rank <= r <= header.rank), default=rank)
        memory.require({"the model": 4 * wanted * _values_of_rank(header.grid)}, "fewer of its ranks")
        state = _empty_state(header, wanted)
        _read_shared(source, header, state, path)
        at, layout = header.fixed_bytes, layout_of(state)
        for r, end in enumerate(header.ends[:wanted]):
            try:
                _read_rank(source, end - at, layout, state, r, path)
            except ModelFileError:
                if r < rank:
                    raise
                state = state.slim(r)
                break
            at = end
    if sound:
        rank_rows.heal(state, sound)
    state.spread_affine()
    return state if state.rank == rank else state.slim(rank)


def _read_rank(source: BinaryIO, n_bytes: int, layout: RankLayout, state: StoredState, r: int, path: Path) -> None:
    """Reads 0-based rank ``r``, with its checksum ``n_bytes`` long, into a state."""
    checksum, block = source.read(CHECKSUM.size), source.read(n_bytes - CHECKSUM.size)
    if checksum != CHECKSUM.pack(zlib.crc32(block)):
        intact = f"; ranks 1 to {r} are intact and can be read" if r else ""
        raise ModelFileError(f"{path} is damaged: rank {r + 1} does not match its checksum{intact}")
    try:
        layout.unpack(block, state, r)
    except (ValueError, OSError, EOFError) as error:
        raise ModelFileError(f"{path} is damaged: rank {r + 1} cannot be unpacked: {error}") from error


def read_header(path: str | Path) -> ModelHeader:
    """Reads only the header, and counts the ranks by the file's size. Raises as ``read`` does."""
    path = Path(path)
    with _open(path) as source:
        return decode_header(source, path)


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"no such model file: {path}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _values_of_rank(grid: tuple[int, int, int]) -> int:
    """Numbers that a rank has in memory, however few bytes its file has for them."""
    return 4 * sum(grid[u] * grid[v] + grid[w] for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True))


def _empty_state(header: ModelHeader, rank: int) -> StoredState:
    """A zeroed state with room for ``rank`` ranks, all of which are in the file."""
    grid = header.grid
    planes = [(grid[v], grid[u]) for u, v in PLANE_AXES]
    lines = [grid[w] for w in LINE_AXES]
    return StoredState(
        config=header.config_at(rank),
        domain=header.domain,
        grid=grid,
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
