"""Rays of the world as they are marched through the space that a field lies in (see ``kernels.space``)."""

import numpy as np

from kernels import space
from tslim.device import buffers
from tslim.errors import ConfigError
from tslim.field.field import Field

LONGEST = 10.0
"""Length in field coordinates that a ray of a contracted space can have: through slabs, the cube, and slabs again."""


def unit_rays(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions, (n, 3) f32 each, from arrays (..., 3) of one shape.

    Raises ``ConfigError`` for other shapes, numbers that are not finite, and directions without length.
    """
    origins, directions = (np.asarray(a, np.float32) for a in (origins, directions))
    if directions.shape != origins.shape or directions.shape[-1:] != (3,):
        raise ConfigError(f"origins {origins.shape} and directions {directions.shape}: expected (n, 3) both")
    origins, directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    right = np.isfinite(origins).all(1) & np.isfinite(length[:, 0]) & (length[:, 0] > 0)
    if not right.all():
        i = int(np.argmin(right))
        raise ConfigError(f"ray {i} from {origins[i].tolist()} along {directions[i].tolist()}: no ray")
    return origins, directions / length


class RaySpace:
    """World rays in the coordinates that they are marched in, and what comes back from there.

    Args:
        field: says which space, and where it lies.
        ray_o, ray_d: device arrays (max_rays, 3) of world origins and unit directions.
    """

    def __init__(self, field: Field, ray_o, ray_d) -> None:
        self.field = field
        self.ray_o, self.ray_d = ray_o, ray_d
        self.contracted = int(field.space == "contracted")
        """Kernel flag."""
        self.marched_o, self.marched_d = ray_o, ray_d
        """Origins and directions as they are marched; in a plain box the rays themselves."""
        if field.space != "box":
            self.marched_o, self.marched_d = (buffers.array(ray_o.shape[0]) for _ in range(2))

    @property
    def limits(self) -> tuple[float, float]:
        """Between which t a ray is marched; in NDC it starts at the near plane and ends with the box."""
        return (0.0, 1e10) if self.field.space == "ndc" else (self.field.near, self.field.far)

    def limits_within(self, share: float) -> tuple[float, float]:
        """The same limits for rays that are sampled in a share of their length, about its middle. Not for a contracted
        space, where that middle is far from everything.
        """
        near, far = self.limits
        if share >= 1:
            return near, far
        begin, length = self.extent
        return max(near, begin + (1 - share) / 2 * length), min(far, begin + (1 + share) / 2 * length)

    @property
    def extent(self) -> tuple[float, float]:
        """Where rays begin and about how long they are, as samples are placed along them (``sample_along``)."""
        if self.field.space == "box":
            return self.field.near, float(np.linalg.norm(self.field.box[1] - self.field.box[0]))
        return 0.0, 4.0 if self.contracted else 2.0

    @property
    def farthest(self) -> float:
        """How far t goes from a camera to the far side of what it looks at."""
        return 2 * self._half if self.contracted else self.extent[1]

    def update(self, n_rays: int) -> None:
        """Takes over the first ``n_rays`` world rays."""
        rays = (self.ray_o, self.ray_d, self.marched_o, self.marched_d)
        if self.field.cube is not None:
            space.cube_rays(n_rays, self.field.cube.mean(0).tolist(), self._half, *rays)
        elif self.field.space == "ndc":
            space.ndc_rays(n_rays, self.field.near, *rays)

    def to_world_depth(self, n_rays: int, ray_opacity, ray_depth) -> None:
        """Turns ray_depth = sum of weight times t, in place, into opacity times a distance from the ray's origin."""
        if self.field.space == "ndc":
            space.ndc_depth(n_rays, self.field.near, self.ray_o, self.ray_d, ray_opacity, ray_depth)

    def depth_backward(self, n_rays: int, ray_opacity, ray_depth, grad_opacity, grad_depth, grad_o, grad_d) -> None:
        """Adjoint of ``to_world_depth``, which left ray_depth; see ``kernels.space.ndc_depth_backward``."""
        if self.field.space == "ndc":
            space.ndc_depth_backward(
                n_rays, self.field.near, self.ray_o, self.ray_d, ray_opacity, ray_depth, grad_opacity, grad_depth,
                grad_o, grad_d,
            )  # fmt: skip

    def backward(self, n_rays: int, grad_o, grad_d) -> None:
        """Adjoint of ``update``: turns gradients of rays as they are marched into those of world rays, in place."""
        if self.contracted:
            space.cube_rays_backward(n_rays, self._half, grad_o, grad_d)
        elif self.field.space == "ndc":
            space.ndc_rays_backward(n_rays, self.field.near, self.ray_o, self.ray_d, grad_o, grad_d)

    @property
    def _half(self) -> float:
        """Half a side of the cube that a contracted space leaves as it is."""
        return float(self.field.world_box[1, 0] - self.field.world_box[0, 0]) / 2
