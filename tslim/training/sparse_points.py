"""What structure from motion knows of depth: rays to its sparse points are free up to them, and stop there.

Where few photographs look, these leave open where a surface is; the points are few, but they are there and exact. Only
those count that enough of the training photographs show. In each step rays are drawn, as many to each point, whether
many or few photographs show it.
"""

import numpy as np

from kernels import points
from tslim.config import TrainConfig
from tslim.device import buffers
from tslim.field.field import Field
from tslim.field.parameters import Gradients
from tslim.rendering.batch import Batch, Rays
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.scene.domain import contract
from tslim.scene.scene import Scene

SIGHTED_BY = 3
"""Training photographs that must show a point."""
TOLERANCE = 0.03
"""A point's depth is right to this share of it: points are exact, and surfaces that voxels show are not."""
_LOOKED_AT, _NEARLY_ALL = 2000, 0.98
"""Sightings from which it is found how far rays have to go, and the share of them that is to get there."""
_OWN_SEED = 0x9E3779B9
"""Draws that have nothing to do with those of other rays of a seed."""


class SparsePoints:
    """Rays to sparse points, and what is paid where they are not free or don't stop. Not for NDC.

    Args:
        field: what is trained.
        scene: its training photographs say which of its points they show (``Views.sees``).
        n_rays: in each step.
        weight: of what ``kernels.points`` says, as a mean over rays.
    """

    def __init__(self, field: Field, scene: Scene, n_rays: int, weight: float, march: MarchConfig, seed: int) -> None:
        self.pipeline = Pipeline(field, Rays(n_rays), march)
        self.weight, self.seed = weight, (seed ^ _OWN_SEED) & 0xFFFFFFFF
        first, sightings = sightings_of(scene)
        self.n_points = len(first) - 1
        self.reach = _reach(sightings, field)
        """How far rays go, in field coordinates, until nearly all of them are past their points."""
        self.first = buffers.upload(first)
        self.sightings = buffers.upload(sightings.astype(np.float32).ravel())
        self.ends = buffers.array(2 * n_rays)

    def backward(self, seen: Batch, step: int, gradients: Gradients) -> None:
        """Adds the gradients of a step's rays to sparse points, at the ranks of the first rays of ``seen``."""
        pipeline, rays = self.pipeline, self.pipeline.rays
        n = rays.max_rays
        points.aim(
            n, self.n_points, seen.n_rays, self.seed, step, self.first, self.sightings, seen.ranks,
            rays.origins, rays.directions, rays.ranks, self.ends,
        )  # fmt: skip
        most = int(np.ceil(self.reach / (pipeline.config.step_ratio * pipeline.field.voxel))) + 1
        pipeline.trace(n, 1, (self.seed & 0x7FFFFFFF, step), most)
        points.weight_gradients(
            n, self.weight / n, self.ends, pipeline.ray_used, pipeline.sample_t, pipeline.sample_weight,
            pipeline.sample_grad,
        )  # fmt: skip
        pipeline.density_backward(gradients, 0.0)


def _reach(sightings: np.ndarray, field: Field) -> float:
    """Length in field coordinates in which most of the rays of sightings (k, 8) get past their points."""
    rows = sightings[:: 1 + len(sightings) // _LOOKED_AT]
    ends = rows[:, 7]
    if field.cube is None:
        return float(np.quantile(ends, _NEARLY_ALL))
    steps = np.linspace(0, 1, 65)[:, None, None] * ends[:, None]
    path = contract((rows[:, :3] + steps * rows[:, 3:6]).reshape(-1, 3), field.cube).reshape(65, -1, 3)
    return float(np.quantile(np.linalg.norm(np.diff(path, axis=0), axis=2).sum(0), _NEARLY_ALL))


def are_there(scene: Scene, settings: TrainConfig) -> bool:
    """Whether there are sparse points to learn from, of which it is known who sees them, and rays to follow to them."""
    if scene.space == "ndc" or settings.refine_poses:
        return False
    return len(_well_seen(scene)[1]) > 0


def sightings_of(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Where the sightings of each point that enough photographs show begin, (n + 1,) i32, and all of them, (k, 8).

    A sighting is the origin and the unit direction of a ray, and the distances between which its point lies.
    """
    image, point = _well_seen(scene)
    order = np.argsort(point, kind="stable")
    image, point = image[order], point[order]
    positions = np.zeros((0, 3)) if scene.points is None else scene.points
    origins = scene.train.cameras.origins.astype(np.float64)[image]
    towards = positions[point].astype(np.float64) - origins
    distance = np.linalg.norm(towards, axis=1, keepdims=True)
    ends = distance * (1 - TOLERANCE, 1 + TOLERANCE)
    _, first = np.unique(point, return_index=True)
    rows = np.concatenate([origins, towards / np.maximum(distance, 1e-30), ends], 1)
    return np.append(first, len(point)).astype(np.int32), rows


def _well_seen(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of image and point, (k,) each, of all sightings of points that enough photographs show."""
    seen = [np.asarray(points, np.int64) for points in scene.train.sees]
    image = np.repeat(np.arange(len(seen)), [len(points) for points in seen])
    point = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    enough = np.bincount(point) >= SIGHTED_BY
    return image[enough[point]], point[enough[point]]
