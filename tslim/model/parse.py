"""Reads the header of a model file without believing a word of it.

Nothing is allocated by a length that a header states before as many bytes have been read, or the length is known to be
small or in proportion to what was read.
"""

import dataclasses
import io
import json
import math
import zlib
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from tslim.config import FieldConfig, Space, from_dict, require_valid_field
from tslim.errors import ModelFileError
from tslim.model import metadata
from tslim.model.compact import CompactLayout
from tslim.model.compact_bz2 import Bz2Layout
from tslim.model.compact_whole import WholeLayout
from tslim.model.header import (
    BZ2_VERSION,
    CODED_VERSIONS,
    COMPACT_VERSION,
    MAGIC,
    MOST_HEADER,
    PRELUDE,
    SEPARATE_VERSION,
    VERSION,
    WHOLE_VERSION,
    ModelHeader,
)  # fmt: skip
from tslim.model.layout import RankLayout
from tslim.model.shared import CELLS_PER_BYTE, FREE_CELLS, FREE_WEIGHTS, MOST_CELLS, WEIGHTS_PER_BYTE
from tslim.model.table import SizeTable
from tslim.scene.domain import SPACES, Domain

_MOST_SIDE = 65_536
_MOST_SHARED = 2**31
_PIECE = 1 << 20
"""bytes that are asked for at once"""


def layout_kind(version: int) -> type[RankLayout]:
    """How the ranks of a file of that version are laid out."""
    kinds = {BZ2_VERSION: Bz2Layout, WHOLE_VERSION: WholeLayout, COMPACT_VERSION: CompactLayout}
    return kinds.get(version, RankLayout)


class Head(NamedTuple):
    """What precedes the ranks, read."""

    header: ModelHeader
    """without ranks"""
    layout: RankLayout
    shared: bytes


def read_head(source: BinaryIO, name: str) -> Head:
    """Reads all that precedes the ranks from a stream that is at its beginning, and nothing after.

    ``name`` is what errors call it. Raises ``ModelFileError``.
    """
    version, length, text = _read_text(source, name)
    header = parse_header(text, PRELUDE.size + length, name, version)
    shared = read_exactly(source, header.fixed_bytes - header.shared_at)
    if shared is None:
        raise ModelFileError(f"{name} is cut short: it ends before its first rank")
    if zlib.crc32(shared) != header.shared_crc32:
        raise ModelFileError(f"{name} is damaged: decoder and occupancy do not match their checksum")
    return Head(header, layout_of_header(header), shared)


def read_header_json(head: bytes, name: str) -> tuple[int, dict[str, Any], bytes]:
    """Version and header of a file's first bytes, checked, and what follows them. Raises ``ModelFileError``."""
    version, length, text = _read_text(io.BytesIO(head), name)
    parse_header(text, PRELUDE.size + length, name, version)
    return version, json.loads(text), head[PRELUDE.size + length :]


def _read_text(source: BinaryIO, name: str) -> tuple[int, int, bytes]:
    """Version, bytes of the header in the file, and its json, which nobody has looked at."""
    start = source.read(PRELUDE.size)
    if start[: len(MAGIC)] != MAGIC[: len(start)] or not start:
        raise ModelFileError(f"{name} is not a tslim model file")
    if len(start) < PRELUDE.size:
        raise ModelFileError(f"{name} is cut short: it ends within its header")
    _, version, length, checksum = PRELUDE.unpack(start)
    if not VERSION <= version <= COMPACT_VERSION:
        known = f"{VERSION} to {COMPACT_VERSION}"
        raise ModelFileError(f"{name} is a model file of version {version}; this tslim reads versions {known}")
    if length > MOST_HEADER:
        raise ModelFileError(f"{name} is damaged: it claims a header of {length} bytes")
    text = read_exactly(source, length)
    if text is None:
        raise ModelFileError(f"{name} is cut short: it ends within its header")
    if zlib.crc32(text) != checksum:
        raise ModelFileError(f"{name} is damaged: its header does not match its checksum")
    if version in CODED_VERSIONS:
        text = _inflated(text, name)
    return version, length, text


def read_exactly(source: BinaryIO, n: int) -> bytes | None:
    """The next n bytes of a stream, or None if there are fewer; memory is taken as they come."""
    found = bytearray()
    while len(found) < n:
        piece = source.read(min(n - len(found), _PIECE))
        if not piece:
            return None
        found += piece
    return bytes(found)


def _inflated(text: bytes, name: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(text, MOST_HEADER + 1)
    except zlib.error as error:
        raise ModelFileError(f"{name} is damaged: its header cannot be unpacked") from error
    if len(text) > MOST_HEADER or not inflater.eof:
        raise ModelFileError(f"{name} is damaged: its header cannot be unpacked")
    return text


def layout_of_header(header: ModelHeader) -> RankLayout:
    """How the ranks of a file with that header are laid out."""
    return layout_kind(header.version)(header.grid, header.rank_scales, header.precision, header.tail)


def parse_header(text: bytes, shared_at: int, name: str, version: int) -> ModelHeader:
    """A header's json; raises ``ModelFileError`` that starts with ``name``."""
    try:
        return _interpret(json.loads(text), shared_at, version)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFileError(f"{name} has a header that makes no sense: {type(error).__name__}: {error}") from error


def _interpret(d: dict[str, Any], shared_at: int, version: int) -> ModelHeader:
    """Checks every entry. Sizes are Python integers, so that no lie overflows."""
    if (d["dtype"] == "compact") != (version in (BZ2_VERSION, *CODED_VERSIONS)):
        raise ValueError(f"precision {d['dtype']!r} in a file of version {version}")
    grid = _three(_sides(d["grid"], low=2))
    decoder = {name: _sides(shape, low=0, n=None) for name, shape in d["decoder"].items()}
    layout = layout_kind(version)(grid, bool(d["affine"]), d["dtype"], _tail(d, version))
    weights = sum(map(math.prod, decoder.values()))
    n_shared = d["shared_bytes"] if version in CODED_VERSIONS else weights * layout.dtype.itemsize
    cells: tuple[int, int, int] | None = None
    cells_box, coding = None, "waves" if version in CODED_VERSIONS else "bits"
    if d["occupancy"] is not None:
        cells, coding = _three(_sides(d["occupancy"]["shape"], low=1)), d["occupancy"]["coding"]
        if coding not in (("waves",) if version in CODED_VERSIONS else ("bits", "deflate")):
            raise ValueError(f"occupancy coded as {coding!r}")
        cells_box = _box(d["occupancy"]["box"])
        n_shared += 0 if version in CODED_VERSIONS else _whole(d["occupancy"]["bytes"], 0, MOST_CELLS)
    _whole(n_shared, 0, _MOST_SHARED)
    if version in CODED_VERSIONS and weights > max(FREE_WEIGHTS, WEIGHTS_PER_BYTE * n_shared):
        raise ValueError(f"a decoder of {weights} numbers in {n_shared} bytes")
    most_cells = min(max(FREE_CELLS, CELLS_PER_BYTE * n_shared), MOST_CELLS)
    if cells is not None and math.prod(cells) > most_cells:
        raise ValueError(f"occupancy of {math.prod(cells)} cells in {n_shared} bytes; at most {most_cells} cells")
    return ModelHeader(
        version=version,
        config=_parse_config(d["config"]),
        domain=_domain(d),
        grid=grid,
        precision=d["dtype"],
        decoder=decoder,
        occupancy=cells,
        occupancy_box=cells_box,
        occupancy_coding=coding,
        shared_crc32=int(d["shared_crc32"]),
        rank_scales=layout.rank_scales,
        metadata=metadata.checked(d["metadata"]),
        shared_at=shared_at,
        fixed_bytes=shared_at + n_shared,
        tail=layout.tail,
        table=None if d.get("table") is None else SizeTable.parse(d["table"]),
    )


def _domain(d: dict[str, Any]) -> Domain:
    near, far = float(d["near"]), float(d["far"])
    if not 0 <= near < far < math.inf:
        raise ValueError(f"near {near}, far {far}")
    space, cube = str(d["space"]), None
    if space not in SPACES:
        raise ValueError(f"space {space!r}; known: {', '.join(SPACES)}; was the file written by a newer tslim?")
    if "cube" not in d:  # before there were other spaces, everything was rendered as a plain box
        space = "box"
    elif space == "contracted":
        cube = _box(d["cube"])
    if space == "ndc" and near == 0:
        raise ValueError("space ndc with a near plane at 0")
    background = None if d["background"] is None else tuple(_finite(d["background"], (3,)).tolist())
    return Domain(_box(d["box"]), near, far, cast(Space, space), background, cube)


def _tail(d: dict[str, Any], version: int) -> tuple[str, int] | None:
    """What ``RankLayout`` calls so: in files of the second version, and perhaps in compact ones."""
    if version == VERSION or (version != SEPARATE_VERSION and "tail" not in d):
        return None
    kind, after = d["tail"]["kind"], d["tail"]["after"]
    if kind not in ("density", "appearance"):
        raise ValueError(f"ranks that hold only {kind!r}")
    return kind, _whole(after, 1, _MOST_SIDE)


def _parse_config(data: dict[str, Any]) -> FieldConfig:
    """A ``FieldConfig`` whose values pass the checks of the command line; absent ones take their defaults."""
    if "max_rank" in data:
        raise ValueError("unknown setting max_rank: how many ranks there are, the file's length says")
    config = from_dict(data, FieldConfig)
    require_valid_field(config)
    return dataclasses.replace(config, max_rank=0)


def _finite(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{values!r} is not {'x'.join(map(str, shape))} finite numbers")
    return array


def _box(values: Any) -> np.ndarray:
    box = _finite(values, (2, 3))
    if not (box[0] < box[1]).all():
        raise ValueError(f"box {values!r} has no volume")
    return box


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number in {low}..{high}")
    return value


def _sides(values: Any, *, low: int, n: int | None = 3) -> tuple[int, ...]:
    if not isinstance(values, list) or (n is not None and len(values) != n) or len(values) > 8:
        raise ValueError(f"{values!r} is not a shape")
    return tuple(_whole(value, low, _MOST_SIDE) for value in values)


def _three(sides: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = sides
    return x, y, z
