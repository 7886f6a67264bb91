"""From arrays to the picture in the preview: colour maps, panes, captions, curves, status text.

Pictures are (h, w, 3) float32 sRGB in [0, 1] until ``compose`` makes them uint8. Text and lines are drawn by Pillow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from tslim.rendering.colours import depth_colours, ramp
from tslim.rendering.media import to_uint8

BACKDROP = (0.09, 0.09, 0.10)
INK = (225, 225, 225)
DIM = (140, 140, 145)
CURVES_HEIGHT = 150
MARGIN = 8


@dataclass(frozen=True, eq=False)
class Pane:
    """One picture and what it shows."""

    picture: np.ndarray
    caption: str


@dataclass
class History:
    """What the curves are drawn from."""

    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)

    def add(self, step: int, loss: float, psnr: float, rank: int) -> None:
        """One more point; a step that was seen already (a resumed run) replaces what came at or after it."""
        while self.steps and self.steps[-1] >= step:
            for values in (self.steps, self.loss, self.psnr, self.rank):
                values.pop()
        self.steps.append(step)
        self.loss.append(loss)
        self.psnr.append(psnr)
        self.rank.append(rank)


def on_backdrop(values: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] to colours (h, w, 3); NaN becomes the backdrop."""
    return np.where(np.isnan(values)[..., None], np.array(BACKDROP, np.float32), ramp(values))


def depth_picture(depth: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Near is bright; the range is that of the solid pixels; where there is nothing, the backdrop shows."""
    return depth_colours(depth, opacity, empty=BACKDROP)


def opacity_picture(opacity: np.ndarray) -> np.ndarray:
    """Grey levels."""
    return np.repeat(np.clip(opacity, 0, 1)[..., None], 3, axis=2).astype(np.float32)


def rank_picture(ranks: np.ndarray, top: int) -> np.ndarray:
    """Colours for how many ranks each pixel needs, 1 to ``top``; 0 (nothing there) becomes the backdrop."""
    share = (ranks - 1) / max(top - 1, 1)
    return on_backdrop(np.where(ranks > 0, share, np.nan).astype(np.float32))


def ranks_needed(pictures: list[np.ndarray], ranks: list[int], opacity: np.ndarray, *, close: float) -> np.ndarray:
    """(h, w) the fewest ranks from which on each pixel stays within ``close`` of the last picture (mean over colours).

    ``pictures`` and ``ranks`` go together, ranks rising; pixels with nothing in them get 0.
    """
    needed = np.full(opacity.shape, ranks[-1], np.int32)
    still = np.ones(opacity.shape, bool)
    for picture, rank in zip(reversed(pictures[:-1]), reversed(ranks[:-1]), strict=True):
        still &= np.abs(picture - pictures[-1]).mean(2) <= close
        needed[still] = rank
    return np.where(opacity > 0.05, needed, 0)


def error_picture(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute error over colours; the ramp ends at 0.2."""
    return ramp(np.abs(picture - truth).mean(2) / 0.2)


def pane_size(width: int, height: int, n_panes: int, curves: bool) -> tuple[int, int]:
    """Largest picture (width, height) that fits each of ``n_panes`` panes beside one another."""
    wide = (width - MARGIN * (n_panes + 1)) // n_panes
    high = height - 2 * MARGIN - 18 - (CURVES_HEIGHT if curves else 0)
    return max(wide, 16), max(high, 16)


def compose(panes: list[Pane], history: History, width: int, height: int, *, column: int, lines: list[str]):
    """The whole picture, (height, width, 3) uint8.

    A column of ``column`` pixels is kept free on the left (the window's panel lies over it), with ``lines`` of text
    if any; to its right the panes side by side with captions, below them the curves.
    """
    canvas = PillowImage.new("RGB", (width, height), tuple(int(255 * c) for c in BACKDROP))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    for row, line in enumerate(lines):
        draw.text((12, 10 + 19 * row), line, INK, font)
    curves = bool(history.steps) and height > 2 * CURVES_HEIGHT
    wide, high = pane_size(width - column, height, len(panes), curves)
    for index, pane in enumerate(panes):
        left = column + MARGIN + index * (wide + MARGIN)
        picture = PillowImage.fromarray(to_uint8(pane.picture))
        scale = min(wide / picture.width, high / picture.height)
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        # Coarser pictures than the pane are drawn smoothly, finer ones are averaged.
        fitted = picture.resize(size, PillowImage.Resampling.BILINEAR if scale >= 1 else PillowImage.Resampling.BOX)
        canvas.paste(fitted, (left + (wide - fitted.width) // 2, MARGIN + 18 + (high - fitted.height) // 2))
        draw.text((left, MARGIN), pane.caption, INK, font)
    if curves:
        _draw_curves(draw, history, (column, height - CURVES_HEIGHT, width, height), font)
    return np.asarray(canvas)


def _draw_curves(draw: ImageDraw.ImageDraw, history: History, area: tuple[int, int, int, int], font) -> None:
    """Loss (logarithmic), PSNR and rank against steps, side by side in ``area`` (left, top, right, bottom)."""
    left, top, right, bottom = area
    wide = (right - left) // 3
    loss = [math.log10(max(v, 1e-12)) for v in history.loss]
    curves: list[tuple[str, Sequence[float], str]] = [
        ("loss (log)", loss, f"{history.loss[-1]:.5f}"),
        ("training PSNR", history.psnr, f"{history.psnr[-1]:.2f} dB"),
        ("rank", history.rank, str(history.rank[-1])),
    ]
    for index, (name, values, text) in enumerate(curves):
        x0, x1 = left + index * wide + MARGIN, left + (index + 1) * wide - MARGIN
        y0, y1 = top + 26, bottom - 12
        draw.text((x0, top + 6), f"{name}  {text}", INK, font)
        draw.rectangle((x0, y0, x1, y1), outline=(60, 60, 64))
        draw.line(_curve(history.steps, values, (x0 + 3, y0 + 4, x1 - 3, y1 - 4), name == "rank"), (250, 200, 60), 2)


def _curve(
    steps: list[int], values: Sequence[float], area: tuple[int, int, int, int], stairs: bool
) -> list[tuple[float, float]]:
    """Points of a curve inside ``area``; at most one value a pixel is kept."""
    x0, y0, x1, y1 = area
    stride = max(1, len(steps) // (x1 - x0 or 1))
    chosen = sorted({*range(0, len(steps), stride), len(steps) - 1})
    low, high = min(values), max(values)
    first, last = steps[0], max(steps[-1], steps[0] + 1)
    points: list[tuple[float, float]] = []
    for i in chosen:
        x = x0 + (x1 - x0) * (steps[i] - first) / (last - first)
        y = y1 - (y1 - y0) * ((values[i] - low) / (high - low) if high > low else 0.5)
        if stairs and points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    return points if len(points) > 1 else [(x0, points[0][1]), (x1, points[0][1])]
