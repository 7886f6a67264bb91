"""Rays, what is seen along them, and, in training, what should be."""

import numpy as np

from kernels import loss as loss_kernels
from kernels import rays as ray_kernels
from tslim.device import buffers


class Rays:
    """Up to ``max_rays`` rays of the world, as flat device arrays. Whoever renders fills the first three.

    ``origins`` and unit ``directions`` (n, 3); ``ranks`` (n,) i32, the rank to render each at. ``Pipeline.forward``
    writes ``pixel`` (n, 3), the colours, not clamped; ``opacity`` (n,) and ``depth`` (n,), the sum of weight times t
    (see ``kernels.space``). ``Pipeline.backward`` reads the gradients of these three.
    """

    def __init__(self, max_rays: int) -> None:
        self.max_rays = max_rays
        self.origins, self.directions = buffers.array(3 * max_rays), buffers.array(3 * max_rays)
        self.ranks = buffers.array(max_rays, np.int32)
        self.pixel, self.grad_pixel = buffers.array(3 * max_rays), buffers.array(3 * max_rays)
        self.opacity, self.grad_opacity = buffers.array(max_rays), buffers.array(max_rays)
        self.depth, self.grad_depth = buffers.array(max_rays), buffers.array(max_rays)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(4 * a.shape[0] for a in vars(self).values() if hasattr(a, "shape"))


class Batch(Rays):
    """The rays of a training step: a sampler fills it, a pipeline renders it, and it compares what is seen.

    Of each of ``n_pixels`` pixels there are ``copies`` rays, each at a rank of its own: the rays are as many copies of
    the first ``n_pixels``. ``target`` (n, 3) are the colours that should be seen, ``weight`` (n,) what each error
    counts for, ``loss`` (n,) the errors; ``pixel_index`` (n_pixels,) i32 is each pixel's number among those of all
    images, and ``image`` (n_pixels,) i32 the number of its image.
    """

    def __init__(self, max_pixels: int, most_copies: int = 1) -> None:
        super().__init__(max_pixels * most_copies)
        self.n_pixels, self.copies = 0, 1
        self.target = buffers.array(3 * self.max_rays)
        self.weight = buffers.upload(np.ones(self.max_rays, np.float32))
        self.loss = buffers.array(self.max_rays)
        self.pixel_index, self.image = (buffers.array(max_pixels, np.int32) for _ in range(2))
        self._sent = np.zeros(0, np.int32)
        """The ranks that the device has."""
        self.pixel_weight = 1.0
        """What all renders of a pixel count for together, in the mean."""

    @property
    def n_rays(self) -> int:
        """Rays in use."""
        return self.copies * self.n_pixels

    def render_at(self, ranks: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Says at which ranks the pixels that are there are rendered.

        Args:
            ranks: (copies, n_pixels) i32.
            weights: (copies * n_pixels,) f32 of the errors; as they were, 1 at first, if None.
        """
        self.copies = len(ranks)
        if self.copies > 1:
            for values in (self.origins, self.directions, self.target):
                ray_kernels.repeat(3 * self.n_pixels, self.copies, values)
        unused = (0, self.max_rays - self.n_rays)
        padded = np.pad(ranks.reshape(-1), unused)
        if not np.array_equal(padded, self._sent):  # as long as all rays have one rank, the device knows it
            buffers.write(self.ranks, padded)
            self._sent = padded
        self.pixel_weight = float(self.copies)
        if weights is not None:
            buffers.write(self.weight, np.pad(weights, unused))
            self.pixel_weight = float(weights.sum()) / self.n_pixels

    def compare(self) -> None:
        """Writes ``loss``, and ``grad_pixel``: of the sum of weight times loss, per pixel."""
        loss_kernels.squared_error(
            self.n_rays, self.pixel, self.target, self.weight, 1 / self.n_pixels, self.loss, self.grad_pixel
        )
