"""The pipeline: rays to pixels, and back to gradients. One object serves training and rendering.

On the CPU, where device arrays are numpy arrays, the product with the basis runs in BLAS; elsewhere in Taichi.
"""

import itertools
import weakref
from dataclasses import dataclass, replace

import numpy as np

from kernels import appearance, composite, decode, density, march
from kernels import penalties as penalties_kernels
from tslim.decoder import blas
from tslim.device import backend, buffers
from tslim.field.field import Factors, Field
from tslim.model.state import N_FEATURES
from tslim.rendering.ray_space import LONGEST, RaySpace
from tslim.scene import lenses
from tslim.scene.cameras import Cameras

PRODUCT_BLOCK = 64
"""Samples that a CPU task of ``appearance.appearance_products`` takes."""
SCAN, PART = 0.65, 0.62
"""What finding the samples of a band costs, of what the gradients of a whole tensor's samples cost; and what the plane,
or the line, costs by itself. Measured on two cores."""


@dataclass(frozen=True)
class MarchConfig:
    """How rays are sampled; defaults as in TensoRF. See the fields of ``TrainConfig`` of the same names."""

    step_ratio: float = 0.5
    weight_threshold: float = 1e-4
    stop_transmittance: float = 1e-4
    colour_span: float = 0.0


@dataclass(frozen=True)
class Penalties:
    """Weights of the penalties of ``kernels.penalties``. See the fields of ``TrainConfig`` of the same names."""

    distortion: float = 0.0
    occlusion: float = 0.0
    occlusion_reach: float = 0.1

    def times(self, factor: float) -> "Penalties":
        """The same penalties with so many times the weight."""
        return replace(self, distortion=factor * self.distortion, occlusion=factor * self.occlusion)


class Gradients:
    """Gradients of a field's parameters: the decoder keeps its own (``field.decoder.grads``)."""

    def __init__(self, field: Field) -> None:
        self.density: Factors = field.density.twin()
        self.appearance: Factors = field.appearance.twin()
        self.basis = buffers.array(field.basis.shape[0])
        self.affine = buffers.array(field.affine.shape[0])

    def release(self) -> None:
        """Gives the arenas back to the pool."""
        self.density.release()
        self.appearance.release()


class Pipeline:
    """Arrays and stages for batches of up to ``max_rays`` rays of one field. Arrays grow as batches need them.

    Use: fill ``ray_o``, ``ray_d`` (in the world, whatever the field's space) and ``ray_rank``; call ``forward``; read
    ``pixel``, ``ray_opacity``, ``ray_depth`` (sum of weight times t, see ``kernels.space``); for gradients
    fill ``grad_pixel`` (and, if wanted, ``grad_opacity``, ``grad_depth``) and call ``backward``.
    """

    def __init__(self, field: Field, max_rays: int, config: MarchConfig | None = None) -> None:
        self.field = field
        self.config = config or MarchConfig()
        self.max_rays = max_rays
        self._on_cpu = backend.current().is_cpu
        self.ray_o, self.ray_d = buffers.array(3 * max_rays), buffers.array(3 * max_rays)
        self.ray_rank = buffers.array(max_rays, np.int32)
        self.space = RaySpace(field, self.ray_o, self.ray_d)
        self.ray_t0 = buffers.array(max_rays)
        self.ray_count, self.ray_used, self.ray_kept, self.ray_groups = (
            buffers.array(max_rays, np.int32) for _ in range(4)
        )
        self.ray_start, self.ray_kept_start, self.ray_group_start = (
            buffers.array(max_rays + 1, np.int32) for _ in range(3)
        )
        self.ray_opacity, self.ray_depth = buffers.array(max_rays), buffers.array(max_rays)
        self.pixel, self.grad_pixel = buffers.array(3 * max_rays), buffers.array(3 * max_rays)
        self.grad_opacity, self.grad_depth = buffers.array(max_rays), buffers.array(max_rays)
        self.ray_grad_affine = buffers.array(2 * max_rays)
        self.ray_mask, self.ray_samples = buffers.array(1, np.uint32), buffers.array(1)
        self._sample_room = self._kept_room = self._group_room = self._product_room = self._slope_room = 0
        self.n_rays = self.n_samples = self.n_kept = self.n_groups = 0
        self.kept_slope = buffers.array(1)
        self.grad_directions = None
        """What each group says of its ray's direction, where ``backward`` was told that someone wants to know."""
        self._take_products(1)
        self._everything = buffers.array(1, np.uint32)

    # -- memory ------------------------------------------------------------------------------------------------------

    def _reserve_samples(self, n: int) -> None:
        if max(n, 1) > self._sample_room:
            self._sample_room = max(n, self._sample_room * 5 // 4, 1024)
            room = self._sample_room
            self.sample_t, self.sample_feature = buffers.array(room), buffers.array(room)
            self.sample_weight, self.sample_grad = buffers.array(room), buffers.array(room)
            self.sample_at = buffers.array(3 * room)
            self.sample_along = buffers.array(room) if self.space.contracted else self.sample_t

    def _reserve_kept(self) -> None:
        if max(self.n_kept, 1) > self._kept_room:
            self._kept_room = max(self.n_kept, self._kept_room * 5 // 4, 256)
            self.kept_t, self.kept_weight = buffers.array(self._kept_room), buffers.array(self._kept_room)
            self.kept_at = buffers.array(3 * self._kept_room)
        n = max(self.n_groups, 1)
        if n > self._group_room:
            self._group_room = max(n, self._group_room * 5 // 4, 256)
            room = self._group_room
            self.group_ray, self.group_start = buffers.array(room, np.int32), buffers.array(room + 1, np.int32)
            self.group_kept, self.group_weight = buffers.array(room), buffers.array(room)
            self.features = buffers.array(N_FEATURES * room)
            self.raw = buffers.array(N_FEATURES * room) if self.field.config.rank_affine else self.features
            self.grad_features = buffers.array(N_FEATURES * room)
            self.colours, self.grad_colours = buffers.array(3 * room), buffers.array(3 * room)
        if n * self.columns > self._product_room:
            self._product_room = max(n * self.columns, self._product_room * 5 // 4, 256 * self.columns)
            self._release_products()
            self._take_products(self._product_room)

    @property
    def columns(self) -> int:
        """Vectors of a group's products: one for each chunk and mode."""
        return 3 * self.chunks

    def _take_products(self, n: int) -> None:
        self.products = buffers.take_arena(n)
        self._release_products = weakref.finalize(self, buffers.give_arena, self.products)

    def _reserve_slopes(self) -> None:
        n = self.columns * self.n_kept
        if n > self._slope_room:
            self._slope_room = max(n, self._slope_room * 5 // 4)
            self.kept_slope = buffers.array(self._slope_room)

    def _reserve_directions(self, of_rays: bool) -> None:
        if not of_rays:
            self.grad_directions = None
        elif self.grad_directions is None or self.grad_directions.shape[0] < 3 * self.n_groups:
            self.grad_directions = buffers.array(3 * max(self._group_room, 1))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        per_ray = 3 + 3 + 1 + 1 + 4 + 3 + 2 + 6 + 2 + 2
        total = per_ray * self.max_rays + self.ray_mask.shape[0] + self.ray_samples.shape[0] + 7 * self._sample_room
        per_group = 4 + (3 if self.field.config.rank_affine else 2) * N_FEATURES + 6
        total += 5 * self._kept_room + per_group * self._group_room
        return 4 * (total + buffers.CHUNK * self._product_room + self._slope_room)

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        n_rays: int,
        *,
        max_rank: int,
        background: tuple[float, float, float],
        jitter: tuple[int, int] | None = None,
        keep: bool = True,
        copies: int = 1,
    ) -> None:
        """Renders the first ``n_rays`` rays into ``pixel`` (not clamped), ``ray_opacity`` and ``ray_depth``.

        Args:
            max_rank: the largest entry of ``ray_rank``.
            background: colour behind the field.
            jitter: (seed, step) for a random shift of each ray's samples; None for none.
            keep: keep what ``backward`` needs.
            copies: the rays are as many copies of the first n_rays / copies, each at ranks of its own: they are marched
                once, and what they have in common is read once.
        """
        field, config = self.field, self.config
        self.n_rays, self.background = n_rays, [float(c) for c in background]
        self.copies, self.n_paths = copies, n_rays // copies
        self.chunks = -(-3 * max_rank // buffers.CHUNK)
        self.march(self.n_paths, jitter)
        march.offsets_from_counts(n_rays, self.n_paths, self.ray_count, self.ray_start)
        self.n_samples = int(self.ray_start[n_rays])
        self._reserve_samples(self.n_samples)
        self._span = config.colour_span * field.voxel
        if self.space.contracted:
            march.gather(
                n_rays, self.n_paths, self.n_steps, self.ray_samples, self.ray_start, self.sample_t, self.sample_along
            )
        else:
            march.expand(
                n_rays, self.n_paths, self.step, self.n_words, self.ray_t0, self.ray_mask, self.ray_start, self.sample_t
            )
        composite.trace_density(
            self.n_paths, copies, *self.space.arguments, self.ray_rank, self.ray_start, self.sample_t,
            field.density.planes, field.density.lines, field.affine, *field.geometry(field.density),
            field.config.density_shift, field.use_softplus, self.step * field.config.distance_scale,
            config.stop_transmittance, config.weight_threshold, self.sample_along, self._span, self.sample_at,
            self.sample_feature, self.sample_weight, self.ray_used, self.ray_kept, self.ray_groups, self.ray_opacity,
            self.ray_depth,
        )  # fmt: skip
        march.offsets_from_counts(n_rays, n_rays, self.ray_kept, self.ray_kept_start)
        march.offsets_from_counts(n_rays, n_rays, self.ray_groups, self.ray_group_start)
        self.n_kept, self.n_groups = int(self.ray_kept_start[n_rays]), int(self.ray_group_start[n_rays])
        self._reserve_kept()
        composite.collect_kept(
            n_rays, self.ray_start, self.ray_used, self.sample_t, self.sample_at, self.sample_weight,
            config.weight_threshold, self.sample_along, self._span, self.ray_kept_start, self.ray_group_start,
            self.kept_t, self.kept_at, self.kept_weight, self.group_ray, self.group_start, self.group_kept,
            self.group_weight,
        )  # fmt: skip
        if self.n_groups:
            self._appearance()
        field.decoder.forward(self.features, self.group_ray, self.ray_d, self.n_groups, self.colours, keep=keep)
        composite.composite(
            n_rays, self.ray_group_start, self.group_weight, self.colours, self.ray_opacity, self.background, self.pixel
        )

    def march(self, n_rays: int, jitter: tuple[int, int] | None = None, enough: int = 2**31 - 1) -> None:
        """Finds the samples of the first ``n_rays`` rays: ``ray_count``, and what ``forward`` makes of them.

        ``enough``: a ray is followed no farther than to so many samples.
        """
        field = self.field
        self.step = self.config.step_ratio * field.voxel
        self.space.update(n_rays)
        seed, jitter_step = jitter or (0, -1)
        given = (n_rays, self.space.path_o, self.space.path_d, seed, jitter_step, *self.space.limits, self.step)
        if self.space.contracted:
            self.n_steps = int(LONGEST / self.step) + 1
            if 2 * self.n_steps * n_rays > self.ray_samples.shape[0]:
                self.ray_samples = buffers.array(2 * self.n_steps * max(n_rays, self.max_rays))
            march.march_contracted(*given, self.n_steps, enough, *self._lattice(), self.ray_samples, self.ray_count)
        else:
            self.n_steps = int(np.linalg.norm(field.box[1] - field.box[0]) / self.step) + 1
            self.n_words = -(-self.n_steps // 32)
            if self.n_words * n_rays > self.ray_mask.shape[0]:
                self.ray_mask = buffers.array(self.n_words * max(n_rays, self.max_rays), np.uint32)
            march.march(
                *given, self.n_steps, enough, field.box[0].tolist(), field.box[1].tolist(), *self._lattice(),
                self.n_words, self.ray_t0, self.ray_mask, self.ray_count,
            )  # fmt: skip

    def _lattice(self) -> tuple:
        """The kernel arguments cells, cell_origin, cells_per_unit, blocks, occupied, coarse."""
        occupancy = self.field.occupancy
        if occupancy is None:
            return [0, 0, 0], [0.0] * 3, [1.0] * 3, [0, 0, 0], self._everything, self._everything
        return (
            list(occupancy.cells), occupancy.box[0].tolist(), occupancy.per_unit.tolist(),
            list(occupancy.blocks), occupancy.words, occupancy.coarse,
        )  # fmt: skip

    def _appearance(self) -> None:
        field, n = self.field, self.n_groups
        appearance.appearance_products(
            n, self.chunks, PRODUCT_BLOCK if self._on_cpu else 1, self.group_ray, self.group_start, self.group_kept,
            self.kept_at, self.kept_weight, self.ray_rank, field.appearance.planes, field.appearance.lines,
            list(field.grid), field.appearance.chunks, self.products,
        )  # fmt: skip
        if self._on_cpu:
            products, basis = self._matrices()
            blas.product(products, basis, self.raw[: n * N_FEATURES].reshape(n, N_FEATURES))
        else:
            appearance.basis_features(n, self.columns, self.products, field.basis, self.raw)
        if field.config.rank_affine:
            appearance.feature_affine(n, self.group_ray, self.ray_rank, field.affine, self.raw, self.features)

    def _matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Products (n, width) and the basis rows in use (width, 27), as numpy views."""
        width = self.columns * buffers.CHUNK
        products = self.products[: self.n_groups * self.columns].reshape(self.n_groups, width)
        return products, self.field.basis[: width * N_FEATURES].reshape(width, N_FEATURES)

    # -- backward ----------------------------------------------------------------------------------------------------

    def backward(
        self,
        gradients: Gradients,
        penalties: Penalties | None = None,
        fade: float = 0.0,
        *,
        of_rays: bool = False,
    ) -> None:
        """Adds the gradients of the factors and of ``affine``; overwrites those of the basis and the decoder.

        Takes dL/dpixel, dL/dopacity and dL/ddepth from ``grad_pixel``, ``grad_opacity``, ``grad_depth``, at the values
        of the last ``forward``, and adds the penalties' (a mean over rays). With ``of_rays``, ``ray_gradients`` may
        follow. ``fade``: see ``TrainConfig.near_fade``.
        """
        field, config = self.field, self.config
        if penalties is not None:
            begin, length = self.space.extent
            penalties_kernels.weight_gradients(
                self.n_rays, self.ray_start, self.ray_used, self.sample_along, self.sample_weight, begin, length,
                self.step / length, penalties.distortion / self.n_rays, penalties.occlusion / self.n_rays,
                penalties.occlusion_reach, self.sample_grad,
            )  # fmt: skip
        self._reserve_directions(of_rays)
        if self.n_groups:
            self._colours_backward(gradients)
        else:
            field.decoder.backward(
                self.features, self.group_ray, self.ray_d, 0, self.colours, self.grad_colours, self.grad_features
            )
            buffers.write(gradients.basis, np.zeros(gradients.basis.shape[0], np.float32))
        composite.composite_backward(
            self.n_rays, self.ray_rank, self.ray_start, self.ray_used, self.ray_kept_start, self.ray_group_start,
            self.group_start, self.kept_slope, self._span, self.sample_t, self.sample_feature, self.sample_weight,
            self.colours, field.affine, field.config.density_shift, field.use_softplus,
            self.step * field.config.distance_scale, config.weight_threshold, self.background,
            self.grad_pixel, self.grad_opacity, self.grad_depth, int(penalties is not None),
            fade * self.space.reach, self.sample_grad, self.ray_grad_affine,
        )  # fmt: skip
        density.density_backward(
            self.n_paths, self.copies, field.density.chunks, *self._shares(3 * field.density.chunks),
            self.ray_rank, self.ray_start, self.ray_used, self.sample_at, self.sample_grad, field.density.planes,
            field.density.lines, gradients.density.planes, gradients.density.lines, list(field.grid),
            field.density.chunks, not self._on_cpu,
        )  # fmt: skip
        if field.config.rank_affine:
            composite.sum_affine(self.n_rays, field.max_rank, self.ray_rank, self.ray_grad_affine, gradients.affine)

    def _colours_backward(self, gradients: Gradients) -> None:
        """From pixels through colours to the appearance factors."""
        field, n = self.field, self.n_groups
        composite.colour_gradients(n, self.group_ray, self.group_weight, self.grad_pixel, self.grad_colours)
        field.decoder.backward(
            self.features, self.group_ray, self.ray_d, n, self.colours, self.grad_colours, self.grad_features,
            self.grad_directions,
        )  # fmt: skip
        if field.config.rank_affine:
            appearance.feature_affine_backward(
                n, self.group_ray, self.ray_rank, field.affine, self.raw, self.grad_features, gradients.affine
            )
        self._basis_backward(gradients)
        shared = int(self._span > 0)
        if shared:
            self._reserve_slopes()
        appearance.appearance_backward(
            n, self.n_kept, self.chunks, *self._shares(self.columns), self.group_ray, self.group_start,
            self.group_kept, self.kept_at, self.kept_weight, self.ray_rank, self.products, field.appearance.planes,
            field.appearance.lines, gradients.appearance.planes, gradients.appearance.lines, list(field.grid),
            field.appearance.chunks, shared, self.kept_slope, not self._on_cpu,
        )  # fmt: skip
        if shared:
            composite.mean_gradients(
                n, self.n_kept, self.columns, self.group_start, self.group_kept, self.kept_weight, self.kept_slope
            )

    def ray_gradients(self, grad_o, grad_d) -> None:
        """Overwrites grad_o and grad_d (n_rays, 3) with the gradients of the world rays, after such a ``backward``.

        Samples stay at their t along the ray (see ``kernels.space``): the march is not differentiated. The direction
        counts twice: as where samples lie, and as what the decoder looks along. Its three numbers are taken as free,
        though they make a unit vector.

        Raises:
            ValueError: the last backward pass was not told to prepare for this.
        """
        field = self.field
        if self.grad_directions is None:
            raise ValueError("the gradients of rays need a backward pass with of_rays=True")
        density.density_ray_gradients(
            self.n_rays, *self.space.arguments, self.ray_rank, self.ray_start, self.ray_used, self.sample_t,
            self.sample_at, self.sample_grad, field.density.planes, field.density.lines,
            *field.geometry(field.density)[1:], grad_o, grad_d,
        )  # fmt: skip
        if self.n_groups:
            appearance.appearance_ray_gradients(
                self.n_rays, self.chunks, *self.space.arguments, self.ray_rank, self.ray_group_start,
                self.group_start, self.group_kept, self.kept_t, self.kept_at, self.kept_weight, self.products,
                field.appearance.planes, field.appearance.lines, *field.geometry(field.appearance)[1:],
                grad_o, grad_d,
            )  # fmt: skip
        self.space.backward(self.n_rays, grad_o, grad_d)
        if self.n_groups:
            decode.sum_directions(self.n_rays, self.ray_group_start, self.grad_directions, grad_d)

    def _basis_backward(self, gradients: Gradients) -> None:
        """Gradient of the basis; then that of the products, in their place."""
        field, n = self.field, self.n_groups
        if self._on_cpu:
            products, basis = self._matrices()
            grad = self.grad_features[: n * N_FEATURES].reshape(n, N_FEATURES)
            gradients.basis[basis.size :] = 0
            blas.product_backward(products, basis, grad, gradients.basis[: basis.size].reshape(basis.shape))
        else:
            gradients.basis.fill(0)
            appearance.basis_gradient(n, self.columns, self.products, self.grad_features, gradients.basis)
            appearance.basis_features_backward(n, self.columns, self.grad_features, field.basis, self.products)

    def _shares(self, tasks: int) -> tuple[int, int, int, int]:
        """How the CPU's threads share a scatter's tasks so that they end soonest (see ``tasks.scatter_share``)."""
        threads = backend.current().threads

        def time(shares: tuple[int, int, int]) -> float:
            whole, bands, parts = shares
            rounds = -(-(tasks - whole) * bands * parts // threads)
            return whole / threads + rounds * (1.0, PART)[parts - 1] * (SCAN + (1 - SCAN) / bands)

        return threads, *min(itertools.product(range(0, tasks + 1, threads), range(1, threads + 1), (1, 2)), key=time)


def camera_arrays(cameras: Cameras) -> tuple:
    """Device arrays poses, intrinsics, lens and its table (``lenses.device_table``), as the ray kernels take them."""
    return (
        buffers.upload(cameras.poses.reshape(-1)),
        buffers.upload(cameras.intrinsics.reshape(-1)),
        buffers.upload(cameras.lens.astype(np.int32)),
        buffers.upload(lenses.device_table(cameras.lens, cameras.distortion).reshape(-1)),
    )
