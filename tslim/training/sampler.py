"""Which pixels a step trains on: every pixel in use once an epoch, in an order that is never stored."""

from typing import Any

import numpy as np

from kernels import pixels, rays
from tslim.device import buffers
from tslim.errors import ModelFileError, SceneError
from tslim.rendering.batch import Batch
from tslim.rendering.camera_table import camera_table
from tslim.rendering.pipeline import Pipeline
from tslim.scene.scene import LEAST_ALPHA, Views

_BLOCK = 32 * pixels.BLOCK_WORDS


class PixelSampler:
    """Fills batches with rays, and the colours they should have, from images.

    Args:
        views: the training images; their pixels go to the device as packed bytes.
        background: colour behind their alpha. None if it is not known: pixels that are more than half transparent
            then show nothing of use and are left out, and the others have their own colour.
        seed: of the order.

    Raises:
        SceneError: all pixels are transparent.
    """

    def __init__(self, views: Views, background: tuple[float, float, float] | None, seed: int) -> None:
        self.n_pixels = int(views.offsets[-1])
        self.background = background
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.n_images = len(views)
        self.pixels = buffers.borrow(views.pixels)
        widths = np.append(views.cameras.sizes[:, 0], 0)
        self.images = buffers.upload(np.stack([views.offsets, widths], 1).astype(np.int32).reshape(-1))
        self.cameras = camera_table(views.cameras)
        self.n_blocks = -(-self.n_pixels // _BLOCK)
        words = np.full(self.n_blocks * pixels.BLOCK_WORDS, 0xFFFFFFFF, np.uint32)
        words[self.n_pixels // 32 :] = 0
        if self.n_pixels % 32:
            words[self.n_pixels // 32] = (1 << self.n_pixels % 32) - 1
        self.used = buffers.upload(words)
        if background is None and views.has_alpha():
            pixels.drop_transparent(self.n_pixels, self.pixels, LEAST_ALPHA, self.used)
        self._count()
        if self.n_used == 0:
            raise SceneError("the training photographs are masked, or transparent, everywhere: nothing to learn from")

    @property
    def nbytes(self) -> int:
        """Bytes of the images and the bitset."""
        return 4 * self.n_pixels + self.n_pixels // 8

    def _count(self) -> None:
        counts = buffers.array(self.n_blocks, np.int32)
        pixels.block_counts(self.n_blocks, self.used, counts)
        sums = np.concatenate([[0], np.cumsum(buffers.read(counts), dtype=np.int64)])
        self.n_used = int(sums[-1])
        self.sums = buffers.upload(sums.astype(np.int32))
        every = np.minimum(np.arange(0, self.n_used + 2 * pixels.HINT, pixels.HINT), max(self.n_used - 1, 0))
        self.hints = buffers.upload((np.searchsorted(sums, every, "right") - 1).astype(np.int32))
        self.half_bits = max(1, (max(self.n_used - 1, 1).bit_length() + 1) // 2)

    def fill(self, batch: Batch, n: int) -> None:
        """Makes the next ``n`` pixels those of ``batch``: their rays, colours and the numbers of their images."""
        batch.n_pixels = n
        if self.position + n > self.n_used:
            self.epoch += 1
            self.position = 0
        key = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]
        epoch = pixels.Epoch(first=self.position, n_used=self.n_used, half_bits=self.half_bits, key=key)
        backdrop = rays.Backdrop(background=self.background or (0.0, 0.0, 0.0), opaque=int(self.background is None))
        pixels.next_pixels(n, epoch, self.used, self.sums, self.hints, batch.pixel_index)
        rays.training_rays(
            n, batch.pixel_index, self.n_images, self.images, self.pixels, self.cameras, backdrop,
            batch.origins, batch.directions, batch.target, batch.image,
        )  # fmt: skip
        self.position += n

    def keep_hits(self, pipeline: Pipeline) -> float:
        """Drops the pixels whose rays meet nothing occupied; returns the share of all pixels still in use.

        If no ray meets anything, all pixels stay.
        """
        chunk = pipeline.rays.max_rays // 32 * 32
        words = buffers.array(self.n_blocks * pixels.BLOCK_WORDS, np.uint32)
        for first in range(0, self.n_pixels, chunk):
            n = min(chunk, self.n_pixels - first)
            rays.pixel_rays(
                n, first, self.n_images, self.images, self.cameras, pipeline.rays.origins, pipeline.rays.directions
            )
            pipeline.march(n, most=1)
            pixels.flag_pixels(first, n, pipeline.ray_count, words)
        before, self.used = self.used, words
        self._count()
        if self.n_used == 0:
            self.used = before
            self._count()
        self.epoch += 1
        self.position = 0
        return self.n_used / self.n_pixels

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain data to continue from."""
        return {"used": buffers.read(self.used)}, {"epoch": self.epoch, "position": self.position}

    def require_valid(self, used: np.ndarray, position: int) -> None:
        """Raises ``ModelFileError`` unless ``load_state`` can continue from it: at least one pixel is used, and none
        that does not exist.
        """
        bits = np.unpackbits(np.ascontiguousarray(used, "<u4").view(np.uint8), bitorder="little")
        if bits[self.n_pixels :].any() or not bits.any() or position > bits.sum():
            raise ModelFileError(
                "the checkpoint makes no sense: it uses pixels that the photographs do not have, or none"
            )

    def load_state(self, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        buffers.write(self.used, arrays["used"])
        self._count()
        self.epoch, self.position = plain["epoch"], plain["position"]
