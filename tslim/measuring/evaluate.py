"""Measuring a field at several ranks against test images: table, ``eval.json``, pictures."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tslim import files
from tslim.config import short
from tslim.errors import ConfigError, ModelFileError, SceneError
from tslim.measuring import metrics
from tslim.model import model_file, th_file
from tslim.model.sizes import megabytes
from tslim.model.sizes import sizes as sizes_of
from tslim.rendering import media

if TYPE_CHECKING:
    from tslim.field.field import Field
    from tslim.measuring.perceptual import Perceptual
    from tslim.rendering.renderer import Renderer
    from tslim.scene.scene import Views

EDGE = metrics.WINDOW // 2
"""pixels at the border of a picture that are not the middle of a window of SSIM"""
COLUMNS = 6
"""pictures in a row of a comparison"""


@dataclass(frozen=True)
class SweepRow:
    """What a field is worth at one rank. ``str(row)`` is a line for people."""

    rank: int
    bytes: int
    """of the model file slimmed to this rank, as written"""
    psnr: float
    """mean over views, dB"""
    ssim: float
    """mean over views"""
    ms_per_frame: float
    """mean time to render a view, compilation excluded"""
    views: int | None = None
    """how many of the views it was measured on, if not all (see ``every_rank``)"""
    lpips: float | None = None
    """mean over views, if it was asked for (``tslim.measuring.perceptual``)"""

    def __str__(self) -> str:
        some = "" if self.lpips is None else f"   LPIPS {self.lpips:.3f}"
        some += "" if self.views is None else f"   ({self.views} views)"
        return (
            f"rank {self.rank:<3} {megabytes(self.bytes):>7}   {self.psnr:.2f} dB   SSIM {self.ssim:.3f}   "
            f"{self.ms_per_frame:.0f} ms{some}"
        )


class Measured(NamedTuple):
    """What a field is worth at one rank on some views."""

    psnr: np.ndarray
    """(views,) dB"""
    ssim: np.ndarray
    """(views,)"""
    seconds: float
    """mean time to render a view"""
    lpips: np.ndarray | None = None
    """(views,), if it was asked for"""


def halves(rank: int) -> tuple[int, ...]:
    """The ranks that are measured if nobody says which: 16 → 16, 8, 4, 2, 1."""
    ranks = [rank]
    while ranks[-1] > 1:
        ranks.append(ranks[-1] // 2)
    return tuple(ranks)


def rank_sweep(
    field: "Field",
    views: "Views",
    ranks: Iterable[int] | None = None,
    *,
    background: tuple[float, float, float] | None = None,
    renderer: "Renderer | None" = None,
    image_dir: str | Path | None = None,
    on_view: Callable[[int, int], None] | None = None,
    sizes: Sequence[int] | None = None,
    fit_gains: bool = False,
    lpips: "Perceptual | None" = None,
) -> Iterator[SweepRow]:
    """Renders all views at each rank and compares them with the images; yields a row a rank, highest first.

    Args:
        ranks: which; in any order, duplicates count once; the field's and its halves if None.
        background: behind the field and behind transparent images; the field's own if None. Where that is not
            known either, only pixels count that are at least half opaque, with their own colour.
        renderer: one to reuse.
        image_dir: a folder for all rendered views, those of rank 8 in ``rank-08``.
        on_view: called with rank and number of each view that is done.
        sizes: bytes of the file with 1, 2, ... ranks; what it would be in half precision if None.
        fit_gains: for photographs that differ in exposure and white balance: of each, a gain of the three channels is
            fitted on its left half, and the right half is compared.
        lpips: what measures LPIPS besides; None leaves it out.

    Raises (at the call, not at the first row):
        ConfigError: a rank that the field does not have, or no ranks.
        SceneError: no views.
    """
    chosen = checked_ranks(field, ranks)
    measure = Measure(field, views, background, renderer, image_dir, on_view, sizes, fit_gains, lpips)
    return (measure.row(rank, measure.at(rank)) for rank in chosen)


class Measure:
    """Compares a field with the images of views. Arguments and errors are those of ``rank_sweep``."""

    def __init__(
        self,
        field: "Field",
        views: "Views",
        background: tuple[float, float, float] | None = None,
        renderer: "Renderer | None" = None,
        image_dir: str | Path | None = None,
        on_view: Callable[[int, int], None] | None = None,
        sizes: Sequence[int] | None = None,
        fit_gains: bool = False,
        lpips: "Perceptual | None" = None,
    ) -> None:
        if len(views) == 0:
            raise SceneError("no test views to measure on: this scene has none")
        self.views, self.background, self.fit_gains = views, background or field.background, fit_gains
        self.lpips = lpips
        self.counting = [i for i in range(len(views)) if self._middle(i)]
        """Numbers of the views that have pixels to compare"""
        if not self.counting:
            raise SceneError("the test views are masked, or transparent, everywhere: nothing to measure on")
        self.renderer = renderer or new_renderer(field)
        self.folder = None if image_dir is None else Path(image_dir)
        self.on_view = on_view or (lambda rank, index: None)
        self.sizes = sizes or sizes_of(field.state())
        self._warm = False

    def _middle(self, index: int) -> bool:
        """Whether any pixel counts that is the middle of a window of SSIM."""
        valid = self._counts(index)
        return valid is None or bool(valid[EDGE:-EDGE, EDGE:-EDGE].any())

    def _counts(self, index: int) -> np.ndarray | None:
        """(h, w) which pixels are compared; None if all are."""
        valid = valid_pixels(self.views, index, self.background)
        if not self.fit_gains:
            return valid
        width, height = self.views.cameras.sizes[index]
        right = ~left_half(np.empty((height, width)))
        return right if valid is None else valid & right

    def at(self, rank: int, indices: Sequence[int] | None = None) -> Measured:
        """Renders and compares at a rank: the views of these numbers, else all, of which those that count are compared.

        Pictures are written of all views only.
        """
        if not self._warm:  # kernels compile and arrays grow with the first picture: not what a frame costs
            self.renderer.render(self.views.cameras, 0, rank=rank, background=self.background)
            self._warm = True
        psnr, ssim, lpips, seconds = [], [], [], 0.0
        chosen = range(len(self.views)) if indices is None else indices
        for index in chosen:
            image = self.renderer.render(self.views.cameras, index, rank=rank, background=self.background)
            if index in self.counting:
                truth = self.views.image(index, self.background)
                rgb, valid = image.rgb, self._counts(index)
                if self.fit_gains:
                    known = valid_pixels(self.views, index, self.background)
                    rgb = with_fitted_gain(rgb, truth, left_half(truth) if known is None else known & left_half(truth))
                psnr.append(metrics.psnr(rgb, truth, valid))
                ssim.append(metrics.ssim(rgb, truth, valid))
                if self.lpips is not None:
                    lpips.append(self.lpips(rgb, truth, valid))
            seconds += image.seconds
            if self.folder is not None and indices is None:
                media.write_png(self.folder / f"rank-{rank:02}" / f"{index:03}.png", image.rgb)
            self.on_view(rank, index)
        return Measured(np.array(psnr), np.array(ssim), seconds / len(chosen), np.array(lpips) if lpips else None)

    def row(self, rank: int, found: Measured) -> SweepRow:
        """The means, as a row of the table."""
        psnr, ssim = float(found.psnr.mean()), float(found.ssim.mean())
        lpips = None if found.lpips is None else float(found.lpips.mean())
        return SweepRow(rank, self.sizes[rank - 1], psnr, ssim, 1000 * found.seconds, lpips=lpips)


def with_known(path: str | Path, rows: Iterable[SweepRow], views: int, of: str) -> list[SweepRow]:
    """Rows, and what the ``eval.json`` at ``path`` knows besides, if it was measured of the same (``of``).

    That is other ranks, and ranks that it measured on all views while now they were on a few. Highest rank first.
    """
    by_rank = {row.rank: row for row in rows}
    for row in _rows_of_same(Path(path), views, of) if of else ():
        mine = by_rank.get(row.rank)
        if mine is not None and mine.lpips is None and mine.views is row.views is None:
            by_rank[row.rank] = dataclasses.replace(mine, lpips=row.lpips)
        if row.rank not in by_rank or (row.views is None and by_rank[row.rank].views is not None):
            by_rank[row.rank] = row
    return [by_rank[rank] for rank in sorted(by_rank, reverse=True)]


def write_eval_json(path: str | Path, rows: Iterable[SweepRow], views: int, *, of: str = "") -> Path:
    """Writes ``{"views": n, "rows": [{"rank", "bytes", "psnr", "ssim", "ms_per_frame"}, ...]}``, highest rank first.

    A PSNR that is infinite (pictures that are equal) becomes null: json has no infinity. ``of`` says what was measured
    (see ``measured``). Rows of a few views say of how many, in ``views``.
    """
    table = [_plain(row) for row in sorted(rows, key=lambda row: -row.rank)]
    known = {"views": views, **({"of": of} if of else {}), "rows": table}
    return files.write_bytes(path, (json.dumps(known, indent=2) + "\n").encode())


def _plain(row: SweepRow) -> dict[str, float | None]:
    values = dataclasses.asdict(row)
    for name in ("views", "lpips"):
        if values[name] is None:
            del values[name]
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


def left_half(picture: np.ndarray) -> np.ndarray:
    """(h, w) bool: the left half of a picture (h, w, ...), without the middle column of an odd width."""
    height, width = picture.shape[:2]
    return np.broadcast_to(np.arange(width) < width // 2, (height, width))


def with_fitted_gain(rgb: np.ndarray, truth: np.ndarray, on: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) with each channel times the gain that brings it closest to ``truth`` where ``on`` (h, w).

    The picture itself where there is nothing to fit on.
    """
    a, b = (picture[on].astype(np.float64) for picture in (rgb, truth))
    power = (a * a).sum(0)
    gain = np.where(power > 0, (a * b).sum(0) / np.maximum(power, 1e-12), 1.0)
    return np.clip(rgb * gain, 0, 1).astype(np.float32)


def measured(
    model: Path, views: "Views", background: tuple[float, float, float] | None, fit_gains: bool = False
) -> str:
    """A fingerprint of what is measured, and how: the model, the images with their cameras, the background.

    Of a model file's header only what changes pictures counts, and not the table of sizes and qualities.
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


def read_eval_json(path: str | Path) -> tuple[list[SweepRow], int]:
    """Rows and number of views of an ``eval.json``. Raises ``FileNotFoundError``, or ``ModelFileError`` if damaged."""
    rows, views, _ = _read(Path(path))
    return rows, views


def _read(path: Path) -> tuple[list[SweepRow], int, Any]:
    """Rows, number of views, and of what they were measured if the file says so; raises as ``read_eval_json``."""
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
    """The inverse of ``_plain``; raises ``ValueError`` and its like for nonsense."""
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
    if value is None:  # see ``write_eval_json``
        return math.inf
    if type(value) not in (int, float) or not abs(value) < 1e18:
        raise ValueError(f"{name} is {short(value)}")
    return value


def comparison(
    field: "Field",
    views: "Views",
    ranks: Iterable[int] | None = None,
    *,
    index: int | None = None,
    background: tuple[float, float, float] | None = None,
    renderer: "Renderer | None" = None,
    sizes: Sequence[int] | None = None,
) -> np.ndarray:
    """One view at several ranks, lowest first, beside the ground truth: a captioned picture (h, w, 3) uint8.

    Args:
        ranks: as for ``rank_sweep``.
        index: which view; a quarter of the way through if None.
        background, sizes: as for ``rank_sweep``.

    Raises as ``rank_sweep`` does. The PSNR of a caption is that of its picture.
    """
    chosen, pictures, quality, truth = view_at_ranks(field, views, ranks, index, background, renderer)
    sizes = sizes or sizes_of(field.state())
    captions = [
        f"rank {rank}\n{megabytes(sizes[rank - 1])}, {psnr:.1f} dB" for rank, psnr in zip(chosen, quality, strict=True)
    ]
    count = len(pictures) + 1
    rows = -(-count // COLUMNS)
    return media.grid([*pictures, truth], [*captions, "ground truth\n"], columns=-(-count // rows))


def view_at_ranks(
    field: "Field",
    views: "Views",
    ranks: Iterable[int] | None,
    index: int | None,
    background: tuple[float, float, float] | None,
    renderer: "Renderer | None",
) -> tuple[list[int], list[np.ndarray], list[float], np.ndarray]:
    """One view at several ranks, lowest first: the ranks, a picture (h, w, 3) f32 and its PSNR of each, the image.

    PSNR is NaN where no pixel counts. Arguments and errors are those of ``comparison``.
    """
    chosen = checked_ranks(field, ranks)[::-1]
    if len(views) == 0:
        raise SceneError("no test views to compare with: this scene has none")
    background = background or field.background
    index = len(views) // 4 if index is None else index
    renderer = renderer or new_renderer(field)
    truth, valid = views.image(index, background), valid_pixels(views, index, background)
    pictures = [renderer.render(views.cameras, index, rank=rank, background=background).rgb for rank in chosen]
    counts = valid is None or valid.any()
    quality = [metrics.psnr(picture, truth, valid) if counts else math.nan for picture in pictures]
    return chosen, pictures, quality, truth


def valid_pixels(views: "Views", index: int, background: tuple[float, float, float] | None) -> np.ndarray | None:
    """Which pixels of an image count, (h, w), where the colour behind it may not be known; None if all do."""
    if background is not None:
        return None
    valid = views.valid(index)
    return None if valid.all() else valid


def checked_ranks(field: "Field", ranks: Iterable[int] | None) -> list[int]:
    """Ranks to measure, highest first, each once; the field's and its halves if None.

    Raises ``ConfigError`` for a rank that the field does not have, or no ranks.
    """
    chosen = sorted(set(halves(field.rank) if ranks is None else ranks), reverse=True)
    for rank in chosen:
        if not 1 <= rank <= field.rank:
            raise ConfigError(f"rank {rank} asked for, the model has ranks 1 to {field.rank}")
    if not chosen:
        raise ConfigError(f"no ranks to measure: name some of 1 to {field.rank}")
    return chosen


def new_renderer(field: "Field") -> "Renderer":
    """A renderer of the field; here so that tables can be read without a device."""
    from tslim.rendering.renderer import Renderer

    return Renderer(field)
