"""Views of a field: pictures with depth and opacity, at any of its ranks."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels import rays
from tslim.device import buffers
from tslim.field.field import Field
from tslim.rendering import media
from tslim.rendering.arguments import background_of, sampling_of
from tslim.rendering.batch import Rays
from tslim.rendering.camera_table import camera_table
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.rendering.ray_space import unit_rays
from tslim.scene.cameras import Cameras

CHUNK_RAYS = 16384
"""Rays that are rendered together: enough to amortise launches, few enough to stay near the cache."""


@dataclass(frozen=True, eq=False)
class Image:
    """A rendered view; of rays that make no picture, the same by ray, in the shape that they came in."""

    rgb: np.ndarray
    """(h, w, 3) f32 sRGB, clamped to [0, 1]"""
    depth: np.ndarray
    """(h, w) f32: mean distance along the ray in world units, weighted by opacity; 0 where nothing was hit. In ndc the
    mean is taken there, where the background is not infinitely far"""
    opacity: np.ndarray
    """(h, w) f32 in [0, 1]"""
    seconds: float
    """time that rendering took"""

    @property
    def own_colours(self) -> np.ndarray:
        """(h, w, 3) f32 in [0, 1]: the field's colours alone, of what was rendered over black."""
        return np.clip(self.rgb / np.maximum(self.opacity, 1e-3)[..., None], 0, 1)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.opacity.shape[::-1]))
        return f"<Image: {size}, opacity {self.opacity.mean():.2f} in the mean, {1000 * self.seconds:.0f} ms>"

    def _repr_png_(self) -> bytes | None:
        """What notebooks show: the picture; None, so that they show the line above, where it is none."""
        return media.png_bytes(self.rgb) if self.rgb.ndim == 3 and self.rgb.size else None


MOST_SAMPLES = 2**25
"""Most samples of rays that are rendered together, where a file asks for very fine steps."""


class Renderer:
    """Renders views of a field. Keeps its arrays, so reuse one for many views.

    Args:
        field: what to render; its ``rank`` is the default rank.
        chunk_rays: rays rendered together.
        config: sampling; by default as the field was trained.
    """

    def __init__(self, field: Field, *, chunk_rays: int | None = None, config: MarchConfig | None = None) -> None:
        self.field = field
        march = sampling_of(field, config)
        # A ray through a box has about as many samples as its diagonal has steps.
        longest = 2 * max(field.grid) / march.step_ratio
        chunk_rays = chunk_rays or int(min(CHUNK_RAYS, max(MOST_SAMPLES / longest, 64)))
        self.pipeline = Pipeline(field, Rays(chunk_rays), march)

    def render(
        self,
        cameras: Cameras,
        index: int = 0,
        *,
        rank: int | None = None,
        background: tuple[float, float, float] | None = None,
    ) -> Image:
        """Renders camera ``index`` at its own resolution.

        Args:
            rank: ranks to use, 1 to the field's; all if None.
            background: colour behind the field; the field's own, else white, if None.

        Raises:
            ConfigError: a rank that the field does not have.
        """
        width, height = (int(s) for s in cameras.sizes[index])
        device, pipeline = camera_table(cameras[[index]]), self.pipeline

        def aim(first: int, n: int) -> None:
            rays.image_rays(n, 0, first, width, device, pipeline.rays.origins, pipeline.rays.directions)

        return self._image((height, width), aim, rank, background)

    def render_rays(
        self,
        origins: np.ndarray,
        directions: np.ndarray,
        *,
        rank: int | None = None,
        background: tuple[float, float, float] | None = None,
    ) -> Image:
        """Renders rays of your own.

        Args:
            origins: (..., 3) in world units, or one (3,) for all rays.
            directions: (..., 3), normalised here.
            rank, background: as for ``render``.

        Returns:
            Colour, depth and opacity of each ray, in the shape that the rays come in: (..., 3) and (...).

        Raises:
            ConfigError: shapes that do not fit, a direction without length, or a rank that the field does not have.
        """
        shape, pipeline = np.shape(directions)[:-1], self.pipeline
        if np.shape(origins) == (3,):
            origins = np.broadcast_to(origins, (*shape, 3))
        origins, directions = unit_rays(origins, directions)

        def aim(first: int, n: int) -> None:
            buffers.write_first(pipeline.rays.origins, origins[first : first + n].ravel())
            buffers.write_first(pipeline.rays.directions, directions[first : first + n].ravel())

        return self._image(shape, aim, rank, background)

    def _image(
        self,
        shape: tuple[int, ...],
        aim: Callable[[int, int], None],
        rank: int | None,
        background: tuple[float, float, float] | None,
    ) -> Image:
        """As many rays as ``shape`` has; ``aim(first, n)`` makes the next n the pipeline's."""
        started = time.perf_counter()
        field, pipeline = self.field, self.pipeline
        rank, background = field.rank_or_all(rank), background_of(field, background)
        n_rays = math.prod(shape)
        rgb = np.empty((n_rays, 3), np.float32)
        depth = np.empty(n_rays, np.float32)
        opacity = np.empty(n_rays, np.float32)
        buffers.write(pipeline.rays.ranks, np.full(pipeline.rays.max_rays, rank, np.int32))
        for first in range(0, n_rays, pipeline.rays.max_rays):
            n = min(pipeline.rays.max_rays, n_rays - first)
            aim(first, n)
            pipeline.forward(n, max_rank=rank, background=background, keep=False)
            pipeline.space.to_world_depth(n, pipeline.rays.opacity, pipeline.rays.depth)
            part = slice(first, first + n)
            rgb[part] = buffers.read(pipeline.rays.pixel)[: 3 * n].reshape(n, 3)
            opacity[part] = buffers.read(pipeline.rays.opacity)[:n]
            depth[part] = buffers.read(pipeline.rays.depth)[:n]
        depth /= np.maximum(opacity, 1e-6)
        np.clip(rgb, 0, 1, out=rgb)
        return Image(
            rgb.reshape(*shape, 3), depth.reshape(shape), opacity.reshape(shape), time.perf_counter() - started
        )


def render(field: Field, cameras: Cameras, index: int = 0, *, rank: int | None = None, background=None) -> Image:
    """Renders one view of a field; see ``Renderer.render``."""
    return Renderer(field).render(cameras, index, rank=rank, background=background)
