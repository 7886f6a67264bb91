"""The circle that a fisheye lens throws on a larger sensor: what lies around it is black and shows nothing.

Left in, those corners would be learned as black things in every direction that the lens maps there.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tslim.scene import lenses
from tslim.scene.scene import Views

DARK = 24
"""Pixels around the circle are darker than this in each channel, out of 255, noise and compression included."""
LEAST_SHARE = 0.03
"""Share of a picture's pixels that must lie outside of the circle; below, the dark is taken for what was
photographed."""
STRAYS = 1e-3
"""Share of the bright pixels that may lie outside: writing, glare."""
SECTORS, RIM, LEAST_RIM = 24, 0.92, 0.8
"""A circle is believed if its rim, around RIM of its radius, is bright in some picture in at least LEAST_RIM of its
SECTORS: what is dark on one side only was photographed so."""
MOST_VIEWS = 40
"""At most so many photographs are looked at."""
MARGIN = 0.99
"""Share of the circle's radius that is kept: its edge is blurred."""


def without_surround(train: Views, test: Views) -> tuple[Views, Views, float]:
    """Makes the pixels outside of the image circle transparent; returns training and test views, and the share of such
    pixels.

    Where not all cameras are fisheyes, or no circle is seen, the views stay as they were, and the share is 0.
    """
    if not len(train) or not (train.cameras.lens == lenses.FISHEYE).all():
        return train, test, 0.0
    looked_at = range(0, len(train), 1 + (len(train) - 1) // MOST_VIEWS)
    radius = MARGIN * max(_bright_radius(train, i) for i in looked_at)
    share = float(np.mean([(_radii(train, i) > radius).mean() for i in range(len(train))]))
    if share < LEAST_SHARE or _bright_rim(train, looked_at, radius) < LEAST_RIM:
        return train, test, 0.0
    return _transparent_outside(train, radius), _transparent_outside(test, radius), share


def _radii(views: Views, index: int) -> np.ndarray:
    """(h, w) distance of each pixel from the optical axis, in focal lengths."""
    return np.hypot(*_from_axis(views, index))


def _from_axis(views: Views, index: int) -> tuple[np.ndarray, ...]:
    """x and y (h, w) of each pixel from the optical axis, in focal lengths."""
    fx, fy, cx, cy = views.cameras.intrinsics[index].astype(np.float64)
    width, height = views.cameras.sizes[index]
    x, y = (np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy
    return np.meshgrid(x, y)


def _bright_radius(views: Views, index: int) -> float:
    """How far from the axis a photograph shows anything but black; 0 where it shows nothing at all."""
    bright = (views.rgba(index)[..., :3] > DARK).any(-1)
    return float(np.quantile(_radii(views, index)[bright], 1 - STRAYS)) if bright.any() else 0.0


def _bright_rim(views: Views, looked_at: Iterable[int], radius: float) -> float:
    """Of the directions in which the rim of a circle lies in the pictures, the share in which it is bright in any."""
    seen, bright = np.zeros(SECTORS, bool), np.zeros(SECTORS, bool)
    for i in looked_at:
        x, y = _from_axis(views, i)
        rim = np.abs(np.hypot(x, y) / radius - RIM) < 1 - RIM
        sector = np.floor((np.arctan2(y, x)[rim] / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
        seen[sector] = True
        bright[sector[np.any(views.rgba(i)[..., :3] > DARK, axis=-1)[rim]]] = True
    return float(bright.sum() / max(seen.sum(), 1))


def _transparent_outside(views: Views, radius: float) -> Views:
    """The photographs, transparent outside of the circle."""
    pixels = views.pixels.copy()
    for i in range(len(views)):
        if views.cameras.lens[i] == lenses.FISHEYE:
            part = pixels[views.offsets[i] : views.offsets[i + 1]]
            part[(_radii(views, i) > radius).ravel()] &= np.uint32(0x00FFFFFF)
    return replace(views, pixels=pixels)
