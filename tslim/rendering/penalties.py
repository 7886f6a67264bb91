"""Penalties on where density lies along rays, as gradients: beside the errors of an image, or alone."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kernels import penalties as penalty_kernels

if TYPE_CHECKING:
    from tslim.field.parameters import Gradients
    from tslim.rendering.pipeline import Pipeline


@dataclass(frozen=True)
class Penalties:
    """Weights of the penalties of ``kernels.penalties``. See the fields of ``TrainConfig`` of the same names."""

    distortion: float = 0.0
    occlusion: float = 0.0
    occlusion_range: float = 0.1
    depth: float = 0.0
    """between neighbouring rays of patches; only where ``penalise`` is told of patches"""

    def times(self, factor: float) -> "Penalties":
        """The same penalties, with weights ``factor`` times as large."""
        return replace(
            self, distortion=factor * self.distortion, occlusion=factor * self.occlusion, depth=factor * self.depth
        )

    def weight_gradients(self, pipeline: "Pipeline") -> None:
        """Overwrites the pipeline's ``sample_grad`` with the penalties' gradients of the weights, a mean over rays."""
        begin, length = pipeline.space.extent
        weights = penalty_kernels.Penalties(
            distortion=self.distortion / pipeline.n_rays, occlusion=self.occlusion / pipeline.n_rays,
            near=self.occlusion_range, begin=begin, length=length, delta=pipeline.step_size / length,
        )  # fmt: skip
        penalty_kernels.weight_gradients(
            pipeline.n_rays, weights, pipeline.ray_used, pipeline.sample_along, pipeline.sample_weight,
            pipeline.sample_grad,
        )  # fmt: skip


def backward(pipeline: "Pipeline", gradients: "Gradients", penalties: Penalties, fade: float = 0.0) -> None:
    """Adds the gradients of the penalties alone, for the rays of the last ``Pipeline.forward``.

    For callers that need ``Pipeline.ray_gradients`` of the errors without the penalties; call it after those, since it
    overwrites what they are made of. ``fade``: see ``TrainConfig.near_fade``.
    """
    penalties.weight_gradients(pipeline)
    pipeline.density_backward(gradients, fade)


def penalise(
    pipeline: "Pipeline", n_rays: int, penalties: Penalties, gradients: "Gradients", jitter: tuple[int, int],
    side: int = 1,
) -> None:  # fmt: skip
    """Adds the gradients of the penalties of the first ``n_rays`` rays, for which there need be no image.

    Density alone is looked at, and for the occlusion penalty alone no farther than where ``occlusion_range`` ends.

    Args:
        jitter: as for ``Pipeline.forward``.
        side: rays come in patches of side × side, whose depths are held together by the penalty ``depth``.
    """
    (begin, length), step_size = pipeline.space.extent, pipeline.config.step_ratio * pipeline.field.voxel
    far = penalties.depth or penalties.distortion
    most = 2**31 - 1 if far else int(np.ceil(penalties.occlusion_range * length / step_size)) + 1
    pipeline.trace(n_rays, 1, jitter, most)
    penalties.weight_gradients(pipeline)
    if penalties.depth:
        pairs = n_rays // side**2 * 2 * side * (side - 1)
        penalty_kernels.smooth_depth(
            n_rays, side, penalties.depth / pairs, begin, length, pipeline.ray_used, pipeline.sample_along,
            pipeline.sample_weight, pipeline.rays.grad_depth, pipeline.sample_grad,
        )  # fmt: skip
    pipeline.density_backward(gradients, 0.0)
