"""Helpers of several formats: json that may hold anything, matrices out of it, and the choice of images."""

import codecs
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tslim.errors import SceneError

T = TypeVar("T")

HOLD_OUT = 8
"""Where a format has no split, every eighth image is held out, as in LLFF."""


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 that says so, as PowerShell writes it; raises ``UnicodeDecodeError``.

    What begins like UTF-16 and then with no letter of ASCII is something else.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and (text := data.decode("utf-16"))[:1].isascii():
        return text
    return data.decode("utf-8-sig")


def read_text(path: Path) -> str:
    """The text of a file; raises ``SceneError`` if there is none."""
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError:
        raise SceneError(f"{path}: no such file") from None
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SceneError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a json file; raises ``SceneError`` with file and line."""
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise SceneError(f"{path}: line {error.lineno}, column {error.colno}: not valid json ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise SceneError(f"{path}: not usable json ({error})") from None
    if not isinstance(data, dict):
        raise SceneError(f"{path}: holds a json {type(data).__name__}, expected an object with keys")
    return data


def number(data: Mapping[str, Any], key: str, source: str) -> float:
    """A finite number under ``key``; raises ``SceneError``."""
    if key not in data:
        raise SceneError(f"{source} lacks {key}")
    value = data[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            if np.isfinite(float(value)):
                return float(value)
        except OverflowError:
            pass
    raise SceneError(f"{source}: {key} is {str(value)[:40]}, expected a number")


def numbers(value: Any, shape: tuple[int, ...], source: str, *, spread: bool = False) -> np.ndarray:
    """Finite float64 numbers of a shape; ``spread``: one number may stand for all. Raises ``SceneError``."""
    try:
        found = np.asarray(value, np.float64)
        if spread and found.ndim == 0:
            found = np.full(shape, float(found))
    except (TypeError, ValueError, OverflowError):
        found = np.zeros(0)
    if found.shape != shape or not np.isfinite(found).all():
        raise SceneError(f"{source} is {str(value)[:60]}, expected {' x '.join(map(str, shape))} numbers")
    return found


def frames(data: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The non-empty list of objects under "frames", each with a "file_path"; raises ``SceneError``."""
    listed = data.get("frames")
    if not isinstance(listed, list):
        raise SceneError(f"{path} lacks frames (a list of images with their poses)")
    if not listed:
        raise SceneError(f"{path} lists zero frames")
    for i, frame in enumerate(listed):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise SceneError(f"{path}: frame {i} lacks file_path")
    return listed


def pose(frame: dict[str, Any], path: Path) -> np.ndarray:
    """(3, 4) float64 from a frame's "transform_matrix"; NaN passes (``Cameras.validate`` names the frame)."""
    name = frame["file_path"]
    if "transform_matrix" not in frame:
        raise SceneError(f"{path}: frame {name} lacks transform_matrix")
    try:
        matrix = np.array(frame["transform_matrix"], np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise SceneError(f"{path}: frame {name}: transform_matrix is not a 4x4 matrix of numbers")
    if len(matrix) == 4 and np.abs(matrix[3, :3]).max() > 1e-6 and np.abs(matrix[:3, 3]).max() <= 1e-6:
        raise SceneError(f"{path}: frame {name}: transform_matrix has its position in the last row; transpose it")
    return matrix[:3]


def evenly(items: Sequence[T], count: int | None) -> list[T]:
    """At most ``count`` of the items, evenly spaced, the first among them; all of them for None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def hold_out(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """(train, test): every eighth item, the first among them, is for the test."""
    return [x for i, x in enumerate(items) if i % HOLD_OUT], [x for i, x in enumerate(items) if i % HOLD_OUT == 0]
