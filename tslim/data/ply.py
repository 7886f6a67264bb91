"""Vertex positions of PLY point clouds, ascii or binary, such as nerfstudio writes beside ``transforms.json``."""

from pathlib import Path

import numpy as np

from tslim.data import shots
from tslim.errors import SceneError

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}


def read_ply(path: Path) -> np.ndarray:
    """The finite vertex positions (p, 3) float64; raises ``SceneError`` for anything but a point cloud."""
    data = shots.read_bytes(path)
    end = data.find(b"end_header", 0, 1 << 16)
    start = data.find(b"\n", end) + 1
    if not data.startswith(b"ply") or end < 0 or start == 0:
        raise SceneError(f"{path}: not a PLY file (no header from ply to end_header)")
    order, count, properties = _header(path, data[:end].decode("ascii", "replace"))
    try:
        columns = [[name for name, _ in properties].index(axis) for axis in "xyz"]
    except ValueError:
        raise SceneError(f"{path}: its vertices lack x, y or z") from None
    if order is None:
        points = _ascii(path, data[start:], count, columns)
    else:
        row = np.dtype([(f"{i}", order + kind) for i, (_, kind) in enumerate(properties)])
        if count * row.itemsize > len(data) - start:
            raise SceneError(f"{path}: announces {count} vertices, {len(data) - start} bytes follow; it is truncated")
        table = np.frombuffer(data, row, count, start)
        with np.errstate(invalid="ignore"):  # bytes that are no number are sorted out below
            points = np.stack([table[f"{i}"].astype(np.float64) for i in columns], 1)
    return points[np.isfinite(points).all(1)]


def _header(path: Path, text: str) -> tuple[str | None, int, list[tuple[str, str]]]:
    """(byte order or None for ascii, number of vertices, their properties as (name, numpy type))."""
    order: str | None = ""
    count, element = -1, None
    properties: list[tuple[str, str]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[:1] == ["element"] and len(words) == 3:
            if element is None and words[1] != "vertex":
                raise SceneError(f"{path}: its first element is {words[1][:40]}, expected vertex")
            element = words[1]
            if element == "vertex":
                count = int(words[2]) if words[2].isdecimal() and len(words[2]) < 12 else -1
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                raise SceneError(f"{path}: unknown vertex property {line[:60]!r}")
            properties.append((words[2], _TYPES[words[1]]))
    if order == "" or count < 0:
        raise SceneError(f"{path}: a PLY header without a known format or without a number of vertices")
    return order, count, properties


def _ascii(path: Path, data: bytes, count: int, columns: list[int]) -> np.ndarray:
    lines = data.splitlines()[:count]
    if len(lines) < count:
        raise SceneError(f"{path}: announces {count} vertices, {len(lines)} lines follow; it is truncated")
    try:
        rows = [[float(words[i]) for i in columns] for words in (line.split() for line in lines)]
    except (ValueError, IndexError):
        raise SceneError(f"{path}: a vertex that is not a line of numbers") from None
    return np.array(rows, np.float64).reshape(-1, 3)
