"""The model file: ranks in order, so that the first bytes of a model are a smaller model.

Layout, all numbers little-endian (``docs/format.md`` says it byte by byte)::

    magic      8 bytes   93 'TSLIM' 0D 0A
    version    u32       1; 2 where the ranks of density and appearance differ; 5 (once 3, 4) in compact files
    length     u32       bytes of the header
    checksum   u32       crc32 of the header
    header     json, utf-8, deflated in compact files: config (without max_rank), box, grid, near, far, space, cube,
               background, dtype (the precision), affine, decoder (shapes by name), occupancy (shape, box, coding,
               bytes), shared_crc32, metadata; tail (kind, after) where the ranks differ; shared_bytes in compact files
    shared     decoder and occupancy; see ``shared.py``
    rank 1     crc32 of the block (u32), then the block; see ``RankLayout``, for compact files ``CompactLayout``
    rank 2     ...

Nothing before the ranks depends on how many follow, nor any rank on those after it: a file cut after r ranks *is*,
byte for byte, the file that ``write`` makes of the model slimmed to r. The number of ranks is derived from the bytes
present, and what is left of a rank that was cut through is ignored. Where there is a tail, the blocks after the first
``tail.after`` hold only density or only appearance, which has more ranks; cut below that, it is a model, too.

Factors, basis and decoder are stored in half precision unless asked otherwise (round to nearest even), the rows of
scales in single. A compact file holds planes and lines in steps, coded; see ``compact.py``. There is no
pickle.

Where a path leads to a checkpoint of TensoRF or SlimmeRF (``.th``, see ``tensorf.py``), that is read in its place.
"""

import dataclasses
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tslim import files
from tslim.config import Precision
from tslim.model import reading, tensorf, th_file
from tslim.model.describe import describe
from tslim.model.head import encode_head, layout_of
from tslim.model.header import CHECKSUM, ModelHeader
from tslim.model.parse import read_head
from tslim.model.reading import Source, states
from tslim.model.rounding import convert
from tslim.model.sizes import fit, rank_that_fits, size_of, sizes
from tslim.model.state import FieldState, require_rank
from tslim.model.stored import StoredState, as_stored

__all__ = [
    "FieldState", "ModelHeader", "Precision", "Source", "StoredState", "blocks", "convert", "describe", "fit",
    "rank_that_fits", "read", "read_header", "size_of", "sizes", "states", "write",
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
    parts: Iterator[bytes] = (CHECKSUM.pack(zlib.crc32(block)) + block for block in layout.blocks(state))
    if state.table is not None:
        parts = iter(known := list(parts))
        if not state.table.starts_with([len(part) for part in known]):
            state = dataclasses.replace(state, table=None)
    yield encode_head(state, layout)
    yield from parts


def read_header(path: str | Path) -> ModelHeader:
    """The header of a file, with how many ranks it has, without reading them. Raises as ``read``.

    Of a checkpoint (``.th``), which has to be read for that, the header of the model file that it would be.
    """
    if not th_file.is_th(path):
        return reading.read_header(path)
    state = tensorf.read(path)
    ends = sizes(state)
    head = read_head(io.BytesIO(encode_head(state, layout_of(state))), str(path))
    return head.header.with_ends(tuple(ends), ends[-1])


def exceeds_half(state: FieldState) -> bool:
    """Whether finite values are too large for half precision: such a model has to be written in single."""
    most = float(np.finfo(np.float16).max)
    factors = [*state.density_planes, *state.density_lines, *state.appearance_planes, *state.appearance_lines]
    return any(
        np.abs(array[np.isfinite(array)]).max(initial=0) > most
        for array in (*factors, state.basis, *state.decoder.values())
    )


def read(source: Source, *, rank: int | None = None) -> StoredState:
    """Reads the first ``rank`` ranks of a model file (all that are whole if None), as float32; see ``states``.

    Args:
        source: a path, the bytes themselves, or any stream: it is read once, from where it is, without seeking. A path
            may be that of a checkpoint (``.th``).

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: not a model file, of another version, damaged, or cut before the end of its first rank.
        ConfigError: the file holds fewer ranks than asked for.
    """
    if isinstance(source, str | Path) and th_file.is_th(source):
        whole = tensorf.read(source)
        require_rank(rank or whole.rank, whole.rank, f"{source} holds")
        return whole if rank is None else whole.slim(rank)
    state: StoredState | None = None
    for state in states(source, rank if rank is None or rank > 0 else None):  # noqa: B007
        pass
    assert state is not None, "states raises where there is no rank"
    if rank is not None:
        require_rank(rank, state.rank, f"{source if isinstance(source, str | Path) else 'the model'} holds")
    return state
