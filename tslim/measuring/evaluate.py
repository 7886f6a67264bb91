"""Measuring a field at several ranks against test images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from tslim.errors import ConfigError, SceneError
from tslim.measuring import metrics
from tslim.model.sizes import megabytes
from tslim.model.sizes import sizes as sizes_of
from tslim.rendering import media

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tslim.field.field import Field
    from tslim.measuring.perceptual import Perceptual
    from tslim.rendering.renderer import Renderer
    from tslim.scene.scene import Views

EDGE = metrics.WINDOW // 2
"""Pixels at the border of a picture, which are never the middle of a window of SSIM."""


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


class MeasureOptions(TypedDict, total=False):
    """How a field is compared with images: arguments that ``rank_sweep`` and ``Measure`` take by name."""

    background: tuple[float, float, float] | None
    """behind the field and behind transparent images; the field's own if not given. Where that is not known either,
    only pixels count that are at least half opaque, with their own colour"""
    renderer: "Renderer | None"
    """one to reuse"""
    image_dir: str | Path | None
    """a folder for all rendered views, those of rank 8 in ``rank-08``"""
    on_view: Callable[[int, int], None] | None
    """called with rank and number of each view that is done"""
    sizes: Sequence[int] | None
    """bytes of the file with 1, 2, ... ranks; what it would be in half precision if not given"""
    fit_gains: bool
    """for photographs that differ in exposure and white balance: of each, a gain of the three channels is fitted on its
    left half, and the right half is compared"""
    lpips: "Perceptual | None"
    """what measures LPIPS besides; left out if not given"""


def rank_sweep(
    field: "Field", views: "Views", ranks: Iterable[int] | None = None, **options: "Unpack[MeasureOptions]"
) -> Iterator[SweepRow]:
    """Renders all views at each rank and compares them with the images; yields a row a rank, highest first.

    Args:
        ranks: which; in any order, duplicates count once; the field's and its halves if None.
        options: any of ``MeasureOptions``, by name: background, renderer, image_dir, on_view, sizes, fit_gains, lpips.

    Raises (at the call, not at the first row):
        ConfigError: a rank that the field does not have, or no ranks.
        SceneError: no views.
    """
    chosen = checked_ranks(field, ranks)
    measure = Measure(field, views, **options)
    return (measure.row(rank, measure.at(rank)) for rank in chosen)


class Measure:
    """Compares a field with the images of views. Raises ``SceneError`` if there are none."""

    def __init__(self, field: "Field", views: "Views", **options: "Unpack[MeasureOptions]") -> None:
        if unknown := sorted(set(options) - set(MeasureOptions.__annotations__)):
            raise TypeError(f"unknown option {unknown[0]}; known: {', '.join(MeasureOptions.__annotations__)}")
        if len(views) == 0:
            raise SceneError("no test views to measure on: this scene has none")
        self.views = views
        self.background = options.get("background") or field.background
        self.fit_gains = options.get("fit_gains", False)
        self.lpips = options.get("lpips")
        self.counting = [i for i in range(len(views)) if self._middle(i)]
        """Numbers of the views that have pixels to compare"""
        if not self.counting:
            raise SceneError("the test views are masked, or transparent, everywhere: nothing to measure on")
        self.renderer = options.get("renderer") or new_renderer(field)
        folder = options.get("image_dir")
        self.folder = None if folder is None else Path(folder)
        self.on_view = options.get("on_view") or (lambda rank, index: None)
        self.sizes = options.get("sizes") or sizes_of(field.state())
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
        """Renders the views of these numbers, all by default, at a rank, and compares those that have pixels to
        compare.

        Pictures are written only where all views are rendered.
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
