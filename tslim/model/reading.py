"""Reads model files from their first byte to their last: from a path, from bytes, or from a stream as it arrives."""

import contextlib
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from tslim.config import Precision
from tslim.device import memory
from tslim.errors import ModelFileError
from tslim.model import rank_rows
from tslim.model.header import CHECKSUM, ModelHeader
from tslim.model.layout import N_STEPS, RankLayout, Unpack
from tslim.model.neighbours import PULLS
from tslim.model.parse import Head, read_exactly, read_head
from tslim.model.shared import decode_shared
from tslim.model.state import LINE_AXES, N_FEATURES, PLANE_AXES, SCALES_WIDTH
from tslim.model.stored import StoredState

Source = str | Path | bytes | BinaryIO
"""A path, the bytes themselves, or whatever has a ``read`` that gives at most as many bytes as it is asked for."""


def states(source: Source, most: int | None = None) -> Iterator[StoredState]:
    """The model as it grows: after each rank that has been read, as float32, the state of all up to it.

    They share memory, and nothing is read ahead of what is yielded. Ends where the source does, within a rank or not,
    or after ``most`` ranks. Scales and shifts of ranks that training never rendered, which older files hold as it left
    them, are put right (``rank_rows``), for which what follows ``most`` may have to be looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: not a model file, of another version, damaged, or cut before the end of its first rank.
        OutOfMemoryError: it does not fit into memory.
    """
    n_ranks = read_header(source).rank if isinstance(source, str | Path) else 0
    with opened(source) as (stream, name):
        head = read_head(stream, name)
        rendered = rank_rows.heal_from(head.header.metadata, n_ranks) if head.header.rank_scales else ()
        wanted = most if most is None else min((r for r in rendered if r >= most), default=most)
        state = _empty_state(head.header, 0)
        state.decoder, state.occupancy = _shared(head, name)
        unpack, held = head.layout.unpacker(state), 0
        while held != wanted:
            try:
                block = _read_block(stream, head.layout, held, name)
                if block is None:
                    break
                _require_length(head.header, held, block, name)
                if held == state.rank:
                    state = _with_room(state, head.header, max(2 * held, 1))
                _unpack(head.layout, unpack, block, state, held, name)
            except ModelFileError:
                if most is None or held < most:
                    raise
                break
            held += 1
            if most is None or held < most:
                yield _state_so_far(state, head.header, held, rendered)
        if held == 0:
            raise ModelFileError(f"{name} is cut short: it ends within its first rank")
        if most is not None and held >= most:
            yield _state_so_far(state, head.header, held, rendered).slim(most)


def _require_length(header: ModelHeader, rank: int, block: bytes, name: str) -> None:
    """Raises ``ModelFileError`` unless the block of 0-based ``rank`` is as long as the file's own table says."""
    known = header.table
    if known is not None and known.blocks[rank : rank + 1] != (CHECKSUM.size + len(block),):
        raise ModelFileError(f"{name} is damaged: rank {rank + 1} is not as long as its table of sizes says")


def _shared(head: Head, name: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    try:
        with np.errstate(over="ignore"):
            decoder, occupancy = decode_shared(head.shared, head.header)
    except ValueError as error:
        raise ModelFileError(f"{name} is damaged: {error}") from error
    _require_finite(decoder.values(), f"the decoder of {name}")
    return decoder, occupancy


def _unpack(layout: RankLayout, unpack: Unpack, block: bytes, state: StoredState, rank: int, name: str) -> None:
    try:
        with np.errstate(over="ignore"):
            unpack(block, state, rank)
    except ValueError as error:
        raise ModelFileError(f"{name} is damaged: rank {rank + 1} cannot be unpacked: {error}") from error
    scales = [] if state.rank_scales is None else [state.rank_scales[rank]]
    _require_finite([*layout.slices(state, rank), *scales], f"rank {rank + 1} of {name}")


def _require_finite(arrays: Iterable[np.ndarray], what: str) -> None:
    """Raises ``ModelFileError`` for numbers that no model may hold, behind a checksum that fits, too."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise ModelFileError(f"{what} holds values that are not finite")


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """A source as a stream, and what errors call it; what fails in reading it is a ``ModelFileError``."""
    name = str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "the model"))
    try:
        if isinstance(source, str | Path):
            with open(source, "rb") as stream:
                yield stream, name
        elif isinstance(source, bytes | bytearray | memoryview):
            yield io.BytesIO(source), "the model"
        else:
            yield cast(BinaryIO, _Patient(source)), name
    except FileNotFoundError:
        raise FileNotFoundError(f"no such model file: {name}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {name}: {error.strerror or error}") from error


class _Patient:
    """Gives as many bytes as it is asked for while there are any, where sockets and pipes give what they have."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def read(self, n: int) -> bytes:
        found = bytearray()
        while len(found) < n and (piece := self._source.read(n - len(found))):
            found += piece
        return bytes(found)


def read_header(path: str | Path) -> ModelHeader:
    """The header of a file and, by the lengths of its blocks alone, how many ranks it has. Raises as ``states``."""
    with opened(path) as (stream, name):
        head = read_head(stream, name)
        n_bytes = stream.seek(0, io.SEEK_END)
        ends: list[int] = []
        at = head.header.fixed_bytes
        while True:
            stream.seek(at + CHECKSUM.size)
            try:
                known, length = head.layout.read_length(stream, len(ends))
            except ValueError as error:
                if not ends:
                    raise ModelFileError(f"{name} is damaged: rank 1 cannot be unpacked: {error}") from error
                break
            at += CHECKSUM.size + len(known) + length
            if at > n_bytes:
                break
            ends.append(at)
        if not ends:
            raise ModelFileError(f"{name} is cut short: it ends within its first rank")
        starts = [head.header.fixed_bytes, *ends]
        blocks = [end - start for start, end in itertools.pairwise(starts)]
        if head.header.table is not None and not head.header.table.starts_with(blocks):
            raise ModelFileError(f"{name} is damaged: its ranks are not as long as its table of sizes says")
        return head.header.with_ends(tuple(ends), n_bytes)


def _read_block(stream: BinaryIO, layout: RankLayout, rank: int, name: str) -> bytes | None:
    """The next block, None if the stream ends within it; raises ``ModelFileError`` if its checksum does not fit."""
    checksum = read_exactly(stream, CHECKSUM.size)
    if checksum is None:
        return None
    try:
        known, length = layout.read_length(stream, rank)
    except ValueError as error:
        raise ModelFileError(f"{name} is damaged: rank {rank + 1} cannot be unpacked: {error}") from error
    block = read_exactly(stream, length)
    if block is None:
        return None
    block = known + block
    if checksum != CHECKSUM.pack(zlib.crc32(block)):
        intact = f"; ranks 1 to {rank} are intact and can be read" if rank else ""
        raise ModelFileError(f"{name} is damaged: rank {rank + 1} does not match its checksum{intact}")
    return block


def _empty_state(header: ModelHeader, rank: int) -> StoredState:
    """A zeroed state with room for ``rank`` ranks."""
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
        rank_scales=np.zeros((rank, SCALES_WIDTH), np.float32) if header.rank_scales else None,
        decoder={},
        occupancy_box=header.occupancy_box,
        metadata=header.metadata,
        precision=cast(Precision, header.precision),
        steps=np.ones((rank, N_STEPS), np.float32) if header.precision == "compact" else None,
        pulls=np.zeros((rank, *PULLS), np.int8) if header.precision == "compact" else None,
        table=header.table,
    )


def _with_room(state: StoredState, header: ModelHeader, rank: int) -> StoredState:
    """The same with zeros up to ``rank``."""
    texels = sum(state.grid[u] * state.grid[v] + state.grid[w] for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True))
    memory.require({"the model": 4 * 4 * texels * rank}, "fewer of its ranks")
    larger, held = _empty_state(header, rank), state.rank
    larger.decoder, larger.occupancy = state.decoder, state.occupancy
    for name in ("density_planes", "density_lines", "appearance_planes", "appearance_lines"):
        for into, values in zip(getattr(larger, name), getattr(state, name), strict=True):
            into[: len(values)] = values
    larger.basis[:, : 3 * held] = state.basis
    for name in ("rank_scales", "steps", "pulls"):
        into, values = getattr(larger, name), getattr(state, name)
        if into is not None:
            into[:held] = values
    return larger


def _state_so_far(state: StoredState, header: ModelHeader, rank: int, rendered: tuple[int, ...]) -> StoredState:
    """The state of the ranks that have been read; its scales and shifts are its own."""
    state = state.slim(rank)
    state.separate_ranks = header.separate_ranks_at(rank)
    if state.rank_scales is not None:
        state.rank_scales = state.rank_scales.copy()
    if rendered:
        rank_rows.heal(state, rendered)
    state.spread_rank_scales()
    return state
