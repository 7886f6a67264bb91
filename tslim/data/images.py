"""Many photographs into packed pixels, whatever the format of the data set.

Sizes are read first, then one array for all pixels is allocated and filled image by image, so that memory is bounded
by the result and a full-size image for each of a few threads.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tslim.data.image_file import Mask, Orient, Size, area_downscale, load_mask, load_rgba, read_header
from tslim.device import memory
from tslim.errors import OutOfMemoryError, SceneError
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Views

ROOM_TO_DECODE = 10**9
"""Bytes for pictures while they are decoded, beyond one of them."""


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Decoded images without cameras."""

    pixels: np.ndarray
    """(total,) uint32, packed as in ``Views``."""
    offsets: np.ndarray
    """(n + 1,) int64."""
    sizes: np.ndarray
    """(n, 2) int32 width, height as loaded."""
    full_sizes: np.ndarray
    """(n, 2) int32 width, height before downscaling, after turning upright."""

    def views(self, cameras: Cameras, names: Sequence[str]) -> Views:
        """With their cameras, whose sizes must be ``sizes``."""
        return Views(cameras, self.pixels, self.offsets, tuple(names))


def load_pixels(
    paths: Sequence[Path],
    *,
    downscale: int = 1,
    sizes: Sequence[Size | None] | None = None,
    same_size: bool = False,
    masks: Sequence[Sequence[Mask]] | None = None,
    orient: Orient = "never",
) -> PackedImages:
    """Decodes images to packed RGBA.

    Args:
        paths: the files, all of which must exist.
        downscale: whole factor, by area averaging (see ``area_downscale``).
        sizes: expected (width, height) of each full-size image, None where any will do.
        same_size: every image must be as large as the first.
        masks: those of each image; alpha is multiplied by them, so that what they leave out counts as transparent.
        orient: what to do about EXIF orientation.

    Raises:
        SceneError: a file is missing, no image, truncated, empty, of another size than expected, or too small to
            downscale.
        OutOfMemoryError: the pixels would not fit.
    """
    full_sizes, turns = _sizes_and_turns(paths, downscale, sizes, same_size, orient)
    full = np.array(full_sizes, np.int32).reshape(-1, 2)
    small = full // downscale
    offsets = np.concatenate([[0], np.cumsum(small.astype(np.int64).prod(1))])
    workers = max(1, min(4, len(paths), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    # While it is decoded, a picture takes its pixels twice or so; large ones are decoded by fewer at a time.
    result, one = 4 * int(offsets[-1]), 8 * int(full.astype(np.int64).prod(1).max(initial=0))
    workers = max(1, min(workers, ROOM_TO_DECODE // max(one, 1)))
    _check_memory(result, workers * one, len(paths))
    pixels = np.empty(int(offsets[-1]), "<u4")

    def decode(i: int) -> None:
        rgba = load_rgba(paths[i], downscale=downscale, turn=turns[i])
        for mask in masks[i] if masks is not None else ():
            mask_image = load_mask(mask, tuple(full[i]), turns[i])
            mask_image = area_downscale(np.repeat(mask_image[..., None], 4, 2), downscale)[..., 3]
            rgba[..., 3] = np.round(rgba[..., 3] * (mask_image / 255)).astype(np.uint8)
        pixels[offsets[i] : offsets[i + 1]] = np.ascontiguousarray(rgba).view("<u4").ravel()

    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(decode, i) for i in range(len(paths))]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return PackedImages(pixels.astype(np.uint32, copy=False), offsets, small, full)


def _sizes_and_turns(
    paths: Sequence[Path], downscale: int, sizes: Sequence[Size | None] | None, same_size: bool, orient: Orient
) -> tuple[list[tuple[int, int]], list[int]]:
    """(width, height) of each image as it will be used, before it is made smaller, and the EXIF orientation to undo.

    Decodes nothing. Arguments and errors are those of ``load_pixels``.
    """
    full_sizes: list[tuple[int, int]] = []
    turns: list[int] = []
    for i, (path, header) in enumerate(zip(paths, map(read_header, paths), strict=True)):
        wanted, why = (sizes[i] if sizes is not None else None), "as the data set says"
        if same_size and i > 0:
            wanted, why = full_sizes[0], f"as {paths[0].name}"
        size = header.oriented(orient, wanted)
        if wanted is not None and size != tuple(wanted):
            raise SceneError(f"{path}: {size[0]}x{size[1]} pixels, expected {wanted[0]}x{wanted[1]} {why}")
        if min(size) < downscale:
            raise SceneError(f"{path}: {size[0]}x{size[1]} pixels cannot be made {downscale} times smaller")
        full_sizes.append(size)
        turns.append(header.turn(orient, wanted))
    return full_sizes, turns


def _check_memory(result: int, working: int, count: int) -> None:
    free = memory.available()
    if free is not None and result + working > free:
        raise OutOfMemoryError(
            f"{count} images need {(result + working) / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: "
            "load them smaller (--downscale) or fewer of them (--max-images)"
        )
