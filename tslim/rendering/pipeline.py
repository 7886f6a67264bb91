"""The pipeline: rays to pixels, and back to gradients. One object serves training and rendering.

On the CPU, where device arrays are numpy arrays, the product with the basis runs in BLAS; elsewhere in Taichi.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from kernels import appearance, composite, decode, density, groups, march, ray_gradients, trace
from kernels.cells import EVERYTHING
from tslim.config import require_in_range, with_old_names
from tslim.decoder import blas
from tslim.device import backend, buffers
from tslim.field import features
from tslim.field.field import Field
from tslim.field.parameters import Gradients
from tslim.model.state import N_FEATURES
from tslim.rendering.batch import Rays
from tslim.rendering.penalties import Penalties
from tslim.rendering.ray_space import LONGEST
from tslim.rendering.scatter_cut import scatter_cut
from tslim.rendering.stage_arrays import StageArrays


@with_old_names
@dataclass(frozen=True)
class MarchConfig:
    """How rays are sampled; defaults as in TensoRF. See the fields of ``TrainConfig`` of the same names."""

    step_ratio: float = 0.5
    weight_threshold: float = 1e-4
    early_stop: float = 1e-4
    colour_span: float = 0.0

    def __post_init__(self) -> None:
        """Raises ``ConfigError`` for values that make no sense."""
        require_in_range(dataclasses.asdict(self))


class Pipeline(StageArrays):
    """Stages from the rays of ``rays`` to what is seen along them, and back. ``StageArrays`` says what they write.

    Use: fill the rays' origins, directions (in the world, whatever the field's space) and ranks; call ``forward``; read
    their pixel, opacity and depth; for gradients fill grad_pixel (and, if wanted, grad_opacity, grad_depth) and call
    ``backward``.
    """

    def __init__(self, field: Field, rays: Rays, config: MarchConfig | None = None) -> None:
        super().__init__(field, rays)
        self.config = config or MarchConfig()
        self._on_cpu = backend.current().is_cpu
        self._totals = buffers.array(2, np.int32)
        self._everything = buffers.array(1, np.uint32)
        self._fade = 0.0

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
        within: float = 1.0,
    ) -> None:
        """Renders the first ``n_rays`` rays into their ``pixel``, ``opacity`` and ``depth``.

        Args:
            max_rank: the largest of their ranks.
            background: colour behind the field.
            jitter: (seed, step) for a random shift of each ray's samples; None for none.
            keep: keep what ``backward`` needs.
            copies: the rays are as many copies of the first n_rays / copies, each at ranks of its own: they are marched
                once, and what they have in common is read once.
            within: share of their length, about its middle, in which rays are sampled.
        """
        field, rays = self.field, self.rays
        self.background = [float(c) for c in background]
        self.chunks = -(-3 * max_rank // buffers.CHUNK)
        self.trace(n_rays, copies, jitter, within=within)
        self._find_visible()
        if self.n_groups:
            self._appearance()
        field.decoder.forward(self.features, self.group_ray, rays.directions, self.n_groups, self.colours, keep=keep)
        composite.composite(
            n_rays, self.ray_used, self.ray_group_start, self.sample_t, self.sample_weight, self.group_weight,
            self.colours, self.background, rays.pixel, rays.opacity, rays.depth,
        )  # fmt: skip

    def trace(
        self, n_rays: int, copies: int, jitter: tuple[int, int] | None, most: int = 2**31 - 1, within: float = 1.0
    ) -> None:
        """Marches rays, each to so many samples at most, and finds the weights of the samples."""
        field, rays, config = self.field, self.rays, self.config
        self.n_rays, self.copies, self.n_marched = n_rays, copies, n_rays // copies
        self.march(self.n_marched, jitter, most, within)
        march.offsets_from_counts(n_rays, self.n_marched, self.ray_count, self.ray_start)
        self.n_samples = buffers.number(self.ray_start, n_rays)
        self._reserve_samples(self.n_samples)
        marched = n_rays, self.n_marched, self._how
        if self.space.contracted:
            march.gather(*marched, self.ray_samples, self.ray_start, self.sample_t, self.sample_along)
        else:
            march.expand(*marched, self.ray_t0, self.ray_mask, self.ray_start, self.sample_t)
        self.medium = trace.Medium(
            activation=field.activation, delta_scaled=self.step_size * field.config.distance_scale,
            early_stop=config.early_stop,
        )  # fmt: skip
        trace.trace_density(
            self.n_marched, copies, self.space.marched_o, self.space.marched_d, rays.ranks, self.ray_start,
            self.sample_t, field.density.values, field.rank_scales, field.lattice(field.density), self.medium,
            self.sample_at, self.sample_feature, self.sample_weight, self.ray_used,
        )  # fmt: skip

    def _find_visible(self) -> None:
        """Packs the samples that are given a colour, and says which of them share one."""
        n_rays = self.n_rays
        self.visibility = groups.Visibility(
            weight_threshold=self.config.weight_threshold, span=self.config.colour_span * self.field.voxel
        )
        groups.count_visible(
            n_rays, self.ray_used, self.sample_weight, self.sample_along, self.visibility, self.ray_visible,
            self.ray_groups,
        )  # fmt: skip
        groups.sum_counts(
            n_rays, self.ray_visible, self.ray_groups, self.ray_visible_start, self.ray_group_start, self._totals
        )
        self.n_visible, self.n_groups = buffers.numbers(self._totals)
        self._reserve_visible()
        self._groups = groups.Groups(
            n=self.n_groups, visible=self.n_visible, chunks=self.chunks, shared=int(self.visibility.span > 0)
        )
        groups.collect_visible(
            n_rays, self.ray_used, self.sample_at, self.sample_weight, self.sample_along, self.visibility,
            self.ray_visible_start, self.ray_group_start, self.visible_sample, self.visible_at, self.group_ray,
            self.group_start,
        )  # fmt: skip
        groups.weigh_groups(
            self.n_groups, self.visibility, self.ray_used, self.ray_group_start, self.sample_weight,
            self.visible_sample, self.group_ray, self.group_start, self.visible_part, self.group_visible,
            self.group_weight,
        )  # fmt: skip

    def march(
        self, n_rays: int, jitter: tuple[int, int] | None = None, most: int = 2**31 - 1, within: float = 1.0
    ) -> None:
        """Finds the samples of the first ``n_rays`` rays: ``ray_count``, and what ``forward`` makes of them.

        ``most``: a ray is followed no farther than to so many samples. ``within``: as for ``forward``.
        """
        field = self.field
        self.step_size = self.config.step_ratio * field.voxel
        self.space.update(n_rays)
        seed, jitter_step = jitter or (0, -1)
        near, far = self.space.limits_within(within)
        length = LONGEST if self.space.contracted else np.linalg.norm(field.box[1] - field.box[0])
        n_steps = int(length / self.step_size) + 1
        self._how = how = march.March(
            near=near,
            far=far,
            step_size=self.step_size,
            n_steps=n_steps,
            samples=most,
            seed=seed,
            jitter_step=jitter_step,
        )
        marched, occupancy = (n_rays, self.space.marched_o, self.space.marched_d), field.occupancy
        occupied = EVERYTHING, self._everything, self._everything
        if occupancy is not None:
            occupied = occupancy.lattice, occupancy.words, occupancy.coarse
        self._reserve_steps(n_rays, n_steps)
        if self.space.contracted:
            march.march_contracted(*marched, how, *occupied, self.ray_samples, self.ray_count)
        else:
            box = march.Box(low=field.box[0], high=field.box[1])
            march.march(*marched, how, box, *occupied, self.ray_t0, self.ray_mask, self.ray_count)

    def _appearance(self) -> None:
        features.compute(
            self.field, self._groups, (self.group_start, self.visible_at, self.visible_part), self.group_ray,
            self.rays.ranks, self.products, self.raw, self.features,
        )  # fmt: skip

    # -- backward ----------------------------------------------------------------------------------------------------

    def backward(
        self,
        gradients: Gradients,
        penalties: Penalties | None = None,
        fade: float = 0.0,
        *,
        of_rays: bool = False,
    ) -> None:
        """Adds the gradients of all that the field learns to ``gradients``.

        Takes dL/dpixel, dL/dopacity and dL/ddepth from the rays' ``grad_pixel``, ``grad_opacity``, ``grad_depth``, at
        the values of the last ``forward``, and adds the penalties' (a mean over rays). With ``of_rays``,
        ``ray_gradients`` may follow. ``fade``: see ``TrainConfig.near_fade``.
        """
        if penalties is not None:
            penalties.weight_gradients(self)
        self._reserve_directions(of_rays)
        if self.n_groups:
            self._colours_backward(gradients)
        composition = composite.Composition(
            background=self.background, visibility=self.visibility, with_penalties=int(penalties is not None)
        )
        composite.composite_backward(
            self.n_rays, self.ray_used, self.ray_group_start, self.group_start, self.sample_t, self.sample_weight,
            self.colours, composition, self.rays.grad_pixel, self.rays.grad_opacity, self.rays.grad_depth,
            self.sample_grad,
        )  # fmt: skip
        if self.n_groups and self._groups.shared:
            groups.mean_gradients(
                self._groups, self.group_start, self.group_visible, self.visible_sample, self.visible_part,
                self.visible_slope, self.sample_grad,
            )  # fmt: skip
        self.density_backward(gradients, fade)

    def density_backward(self, gradients: Gradients, fade: float) -> None:
        """From the gradients of the samples' weights to those of the density factors."""
        field = self.field
        self._fade = fade * self.space.farthest
        trace.trace_backward(
            self.n_rays, self.rays.ranks, self.ray_used, self.sample_t, self.sample_feature, self.sample_weight,
            field.rank_scales, self.medium, self._fade, self.sample_grad,
            self.ray_grad_scales,
        )  # fmt: skip
        factors = field.density
        marched = self.n_marched, self.copies, factors.chunks
        arrays = (
            self.rays.ranks, self.ray_used, self.sample_at, self.sample_grad, factors.values,
            gradients.density.values, factors.layout,
        )  # fmt: skip
        if self._on_cpu:
            density.density_backward(*marched, scatter_cut(3 * factors.chunks), *arrays)
        else:
            density.density_backward_atomic(*marched, *arrays)
        if field.config.rank_scales:
            trace.sum_rank_scales(
                self.n_rays, field.max_rank, self.rays.ranks, self.ray_grad_scales, gradients.rank_scales
            )

    def _colours_backward(self, gradients: Gradients) -> None:
        """From pixels through colours to the appearance factors."""
        field, n = self.field, self.n_groups
        composite.colour_gradients(n, self.group_ray, self.group_weight, self.rays.grad_pixel, self.grad_colours)
        field.decoder.backward(
            self.features, self.group_ray, self.rays.directions, n, self.colours, self.grad_colours, self.grad_features,
            gradients.decoder, self.grad_directions,
        )  # fmt: skip
        if field.config.rank_scales:
            appearance.scale_features_backward(
                n, self.group_ray, self.rays.ranks, field.rank_scales, self.raw, self.grad_features,
                gradients.rank_scales,
            )  # fmt: skip
        self._basis_backward(gradients)
        if self._groups.shared:
            self._reserve_slopes()
        factors = field.appearance
        arrays = (
            self.group_ray, self.group_start, self.visible_at, self.visible_part, self.rays.ranks,
            self.products, factors.values, gradients.appearance.values, factors.layout, self.visible_slope,
        )  # fmt: skip
        if self._on_cpu:
            appearance.appearance_backward(self._groups, scatter_cut(self.columns), *arrays)
        else:
            appearance.appearance_backward_atomic(self._groups, *arrays)

    def ray_gradients(self, grad_o, grad_d) -> None:
        """Overwrites grad_o and grad_d (n_rays, 3) with the gradients of the world rays, after such a ``backward``.

        Samples stay at their t along the ray (see ``kernels.space``): the march is not differentiated. The direction
        counts twice: as where samples lie, and as what the decoder looks along. Its three numbers are taken as free,
        though they make a unit vector. No fade shortens them.

        Raises:
            ValueError: the last backward pass was not told to prepare for this.
        """
        field = self.field
        if self.grad_directions is None:
            raise ValueError("the gradients of rays need a backward pass with of_rays=True")
        if self.copies > 1:  # that were marched once
            self.space.update(self.n_rays)
        if self._fade > 0:
            trace.lift_fade(self.n_rays, self.ray_used, self.sample_t, self._fade, self.sample_grad)
            self._fade = 0.0
        if self.sample_slope is None:
            self.sample_slope = buffers.array(3 * self._sample_room)
        density.density_slopes(
            self.n_rays, self.rays.ranks, self.ray_used, self.sample_at, self.sample_grad, field.density.values,
            field.density.layout, self.sample_slope,
        )  # fmt: skip
        if self.n_groups:
            appearance.appearance_slopes(
                self._groups, self.group_ray, self.group_start, self.visible_sample, self.visible_at,
                self.visible_part, self.rays.ranks, self.products, field.appearance.values, field.appearance.layout,
                self.sample_slope,
            )  # fmt: skip
        ray_gradients.ray_gradients(
            self.n_rays, self.space.marched_o, self.space.marched_d, self.ray_used, self.sample_t, self.sample_slope,
            field.lattice(field.density), grad_o, grad_d,
        )  # fmt: skip
        self.space.backward(self.n_rays, grad_o, grad_d)
        if self.n_groups:
            decode.sum_directions(self.n_rays, self.ray_group_start, self.grad_directions, grad_d)

    def _basis_backward(self, gradients: Gradients) -> None:
        """Adds the gradient of the basis; then overwrites the products with theirs."""
        field, n = self.field, self.n_groups
        if self._on_cpu:
            products, basis = features.matrices(self.field, self._groups, self.products)
            grad = self.grad_features[: n * N_FEATURES].reshape(n, N_FEATURES)
            blas.product_backward(products, basis, grad, gradients.basis[: basis.size].reshape(basis.shape))
        else:
            appearance.basis_gradient(n, self.columns, self.products, self.grad_features, gradients.basis)
            appearance.basis_features_backward(n, self.columns, self.grad_features, field.basis, self.products)
