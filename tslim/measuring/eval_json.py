"""``eval.json``: what each rank of a model was measured to be worth, and on which model and images."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim import files
from tslim.errors import ModelFileError, short
from tslim.measuring.evaluate import SweepRow
from tslim.model import model_file, th_file

if TYPE_CHECKING:
    from tslim.scene.scene import Views


def merged_with_file(path: str | Path, rows: Iterable[SweepRow], views: int, of: str) -> list[SweepRow]:
    """Rows, with those added that the ``eval.json`` at ``path`` holds of the same model and images (``of``).

    Added are other ranks, and the file's rows that were measured on all views where the new ones are of a few. Highest
    rank first.
    """
    by_rank = {row.rank: row for row in rows}
    for row in _rows_of_same(Path(path), views, of) if of else ():
        mine = by_rank.get(row.rank)
        if mine is not None and mine.lpips is None and mine.views is row.views is None:
            by_rank[row.rank] = dataclasses.replace(mine, lpips=row.lpips)
        if row.rank not in by_rank or (row.views is None and by_rank[row.rank].views is not None):
            by_rank[row.rank] = row
    return [by_rank[rank] for rank in sorted(by_rank, reverse=True)]


def write(path: str | Path, rows: Iterable[SweepRow], views: int, *, of: str = "") -> Path:
    """Writes ``{"views": n, "rows": [{"rank", "bytes", "psnr", "ssim", "ms_per_frame"}, ...]}``, highest rank first.

    A PSNR that is infinite (pictures that are equal) becomes null: json has no infinity. ``of`` says what was measured
    (see ``fingerprint``). Rows of a few views say of how many, in ``views``.
    """
    table = [_as_json(row) for row in sorted(rows, key=lambda row: -row.rank)]
    known = {"views": views, **({"of": of} if of else {}), "rows": table}
    return files.write_bytes(path, (json.dumps(known, indent=2) + "\n").encode())


def _as_json(row: SweepRow) -> dict[str, float | None]:
    values = dataclasses.asdict(row)
    for name in ("views", "lpips"):
        if values[name] is None:
            del values[name]
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


def fingerprint(
    model: Path, views: "Views", background: tuple[float, float, float] | None, fit_gains: bool = False
) -> str:
    """A fingerprint of what is measured, and how: the model, the images with their cameras, the background.

    Of a model file's header only what changes pictures counts; the table of sizes and qualities does not.
    """
    digest = hashlib.sha256()
    with open(model, "rb") as source:
        if not th_file.is_th(model):
            header = model_file.read_header(model)
            digest.update(repr((header.config, header.domain, header.grid, header.metadata.get("march"))).encode())
            source.seek(header.shared_at)
        while part := source.read(1 << 20):
            digest.update(part)
    cameras = views.cameras
    for array in (views.pixels, cameras.poses, cameras.intrinsics, cameras.sizes, cameras.lens, cameras.distortion):
        digest.update(np.ascontiguousarray(array).data)
    digest.update((repr(background) + " gains" * fit_gains).encode())
    return digest.hexdigest()[:16]


def _rows_of_same(path: Path, views: int, of: str) -> list[SweepRow]:
    """The rows that are there already, if they were measured of the same."""
    try:
        rows, count, measured_of = _read(path)
        return rows if measured_of == of and count == views else []
    except (OSError, ValueError):
        return []


def read(path: str | Path) -> tuple[list[SweepRow], int]:
    """Rows and number of views of an ``eval.json``. Raises ``FileNotFoundError``, or ``ModelFileError`` if damaged."""
    rows, views, _ = _read(Path(path))
    return rows, views


def _read(path: Path) -> tuple[list[SweepRow], int, Any]:
    """Rows, number of views, and of what they were measured if the file says so; raises as ``read``."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = [_row(each) for each in data["rows"]]
        if len({row.rank for row in rows}) < len(rows):
            raise ValueError("a rank is there twice")
        return rows, _whole(data["views"], "views"), data.get("of")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not an evaluation: {str(error)[:200]}") from error


def _row(plain: dict[str, Any]) -> SweepRow:
    """The inverse of ``_as_json``; raises ``ValueError`` and its like for nonsense."""
    if strange := set(plain) - {field.name for field in dataclasses.fields(SweepRow)}:
        raise ValueError(f"it holds {short(sorted(strange)[0])}")
    return SweepRow(
        _whole(plain["rank"], "rank"),
        _whole(plain["bytes"], "bytes"),
        _measure(plain["psnr"], "psnr"),
        _measure(plain["ssim"], "ssim"),
        _measure(plain["ms_per_frame"], "ms_per_frame"),
        None if plain.get("views") is None else _whole(plain["views"], "views"),
        None if plain.get("lpips") is None else _measure(plain["lpips"], "lpips"),
    )


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 1 <= value < 2**53:
        raise ValueError(f"{name} is {short(value)}")
    return value


def _measure(value: Any, name: str) -> float:
    if value is None:  # see ``write``
        return math.inf
    if type(value) not in (int, float) or not abs(value) < 1e18:
        raise ValueError(f"{name} is {short(value)}")
    return value
