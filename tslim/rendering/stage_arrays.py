"""The device arrays that the pipeline's stages hand to one another. They grow as rays need them, and never shrink."""

import weakref

import numpy as np

from tslim.device import buffers
from tslim.field.field import Field
from tslim.model.state import N_FEATURES
from tslim.rendering.batch import Rays
from tslim.rendering.ray_space import RaySpace


class StageArrays:
    """Flat arrays of rays, samples, visible samples and groups; each name begins with what there is one entry of.

    - Of each ray: ``ray_t0`` and ``ray_mask``, or ``ray_samples`` in a contracted space (what the march found);
      ``ray_count``, ``ray_visible``, ``ray_groups`` i32 (how many samples, visible samples and groups it has);
      ``ray_start``, ``ray_visible_start``, ``ray_group_start`` (n_rays + 1,) i32 (where these begin); ``ray_used``
      (n_rays, 2) i32 (the first sample that was looked at, and the one behind the last); ``ray_grad_scales``
      (n_rays, 2), gradients of the density feature's scale and shift.
    - Of each sample: ``sample_t`` along the ray; ``sample_along``, the same in units of the field; ``sample_at`` (n, 3)
      in texels; ``sample_feature``, of density; ``sample_weight``; ``sample_grad``, dL/dweight and, once
      ``trace_backward`` has run, dL/dfeature; ``sample_slope`` (n, 3), dL/dx, or None (see ``Pipeline.ray_gradients``).
    - Of each visible sample: ``visible_sample`` i32 (which one it is), ``visible_at`` (n, 3), ``visible_part`` (of its
      group's mean), ``visible_slope`` (columns, n), from which its weight has its gradient through that mean.
    - Of each group: ``group_ray`` and ``group_start`` i32, ``group_visible`` and ``group_weight`` (K and W of
      ``kernels.groups``); ``products`` (n, columns) vectors of a chunk; ``raw`` and ``features`` (n, 27), before and
      after scale and shift per rank; ``colours`` (n, 3); ``grad_features`` and ``grad_colours``; ``grad_directions``
      (n, 3), what it says of its ray's direction, or None (see ``Pipeline.backward``).
    """

    def __init__(self, field: Field, rays: Rays) -> None:
        self.field = field
        self.rays = rays
        self.space = RaySpace(field, rays.origins, rays.directions)
        max_rays = rays.max_rays
        self.ray_t0 = buffers.array(max_rays)
        self.ray_count, self.ray_visible, self.ray_groups = (buffers.array(max_rays, np.int32) for _ in range(3))
        self.ray_used = buffers.array(2 * max_rays, np.int32)
        self.ray_start, self.ray_visible_start, self.ray_group_start = (
            buffers.array(max_rays + 1, np.int32) for _ in range(3)
        )
        self.ray_grad_scales = buffers.array(2 * max_rays)
        self.ray_mask, self.ray_samples = buffers.array(1, np.uint32), buffers.array(1)
        self._sample_room = self._visible_room = self._group_room = self._product_room = self._slope_room = 0
        self.n_rays = self.n_samples = self.n_visible = self.n_groups = 0
        self.chunks = 0
        """Chunks of components that the largest rank has."""
        self.visible_slope = buffers.array(1)
        self.sample_slope = None
        self.grad_directions = None
        self._take_products(1)

    @property
    def columns(self) -> int:
        """Vectors of a group's products: one for each chunk and mode."""
        return 3 * self.chunks

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held, those of the rays among them."""
        per_ray = 1 + 5 + 3 + 2
        total = per_ray * self.rays.max_rays + 7 * self._sample_room
        total += self.ray_mask.shape[0] + self.ray_samples.shape[0]
        total += 0 if self.sample_slope is None else 3 * self._sample_room
        per_group = 4 + (3 if self.field.config.rank_scales else 2) * N_FEATURES + 6
        total += 5 * self._visible_room + per_group * self._group_room
        return self.rays.nbytes + 4 * (total + buffers.CHUNK * self._product_room + self._slope_room)

    def _reserve_steps(self, n_rays: int, n_steps: int) -> None:
        """What the march writes of every ray: a bit a step, or in a contracted space two numbers a sample."""
        n_most = max(n_rays, self.rays.max_rays)
        if self.space.contracted:
            if 2 * n_steps * n_rays > self.ray_samples.shape[0]:
                self.ray_samples = buffers.array(2 * n_steps * n_most)
        else:
            n_words = -(-n_steps // 32)
            if n_words * n_rays > self.ray_mask.shape[0]:
                self.ray_mask = buffers.array(n_words * n_most, np.uint32)

    def _reserve_samples(self, n: int) -> None:
        if max(n, 1) > self._sample_room:
            self._sample_room = max(n, self._sample_room * 5 // 4, 1024)
            room = self._sample_room
            self.sample_t, self.sample_feature = buffers.array(room), buffers.array(room)
            self.sample_weight, self.sample_grad = buffers.array(room), buffers.array(room)
            self.sample_at = buffers.array(3 * room)
            self.sample_slope = None
            self.sample_along = buffers.array(room) if self.space.contracted else self.sample_t

    def _reserve_visible(self) -> None:
        if max(self.n_visible, 1) > self._visible_room:
            self._visible_room = max(self.n_visible, self._visible_room * 5 // 4, 256)
            room = self._visible_room
            self.visible_sample, self.visible_part = buffers.array(room, np.int32), buffers.array(room)
            self.visible_at = buffers.array(3 * room)
        n = max(self.n_groups, 1)
        if n > self._group_room:
            self._group_room = max(n, self._group_room * 5 // 4, 256)
            room = self._group_room
            self.group_ray, self.group_start = buffers.array(room, np.int32), buffers.array(room + 1, np.int32)
            self.group_visible, self.group_weight = buffers.array(room), buffers.array(room)
            self.features = buffers.array(N_FEATURES * room)
            self.raw = buffers.array(N_FEATURES * room) if self.field.config.rank_scales else self.features
            self.grad_features = buffers.array(N_FEATURES * room)
            self.colours, self.grad_colours = buffers.array(3 * room), buffers.array(3 * room)
        if n * self.columns > self._product_room:
            self._product_room = max(n * self.columns, self._product_room * 5 // 4, 256 * self.columns)
            self._release_products()
            self._take_products(self._product_room)

    def _take_products(self, n: int) -> None:
        self.products = buffers.take_arena(n)
        self._release_products = weakref.finalize(self, buffers.give_arena, self.products)

    def _reserve_slopes(self) -> None:
        n = self.columns * self.n_visible
        if n > self._slope_room:
            self._slope_room = max(n, self._slope_room * 5 // 4)
            self.visible_slope = buffers.array(self._slope_room)

    def _reserve_directions(self, of_rays: bool) -> None:
        if not of_rays:
            self.grad_directions = None
        elif self.grad_directions is None or self.grad_directions.shape[0] < 3 * self.n_groups:
            self.grad_directions = buffers.array(3 * max(self._group_room, 1))
