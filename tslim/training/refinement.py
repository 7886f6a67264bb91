"""Camera poses refined while a field is trained."""

import dataclasses

import numpy as np

from kernels import poses
from kernels.rays import CAMERA
from tslim.device import buffers
from tslim.field.parameters import Parameter
from tslim.rendering.batch import Batch
from tslim.rendering.pipeline import Pipeline
from tslim.scene import paths
from tslim.scene.scene import Views


class PoseRefinement:
    """Moves the cameras of photographs against the gradients of their rays (``kernels.poses``).

    Args:
        views: the photographs that are trained on.
        cameras: their table on the device (``tslim.rendering.camera_table``), whose poses change.
        most_rays: of a batch, all copies counted.
    """

    def __init__(self, views: Views, cameras, most_rays: int) -> None:
        self.n_images = len(views)
        self.cameras = cameras
        self.centre, distance = paths.focus_and_distance(views.cameras)
        self.unit = distance or 1.0
        """What a shift by 1 is, world units: the distance at which cameras stand from what they look at."""
        self.values, self.gradients = (buffers.array(poses.N_MOVES * self.n_images) for _ in range(2))
        self.parameter = Parameter("moves", "poses", self.values, self.gradients)
        """what an optimizer moves"""
        self.grad_o, self.grad_d = (buffers.array(3 * most_rays) for _ in range(2))

    def backward(self, pipeline: Pipeline, batch: Batch) -> None:
        """Adds to ``gradients``, after a ``backward`` of the pipeline of this batch with ``of_rays=True``."""
        pipeline.ray_gradients(self.grad_o, self.grad_d)
        poses.move_gradients(
            batch.n_rays, batch.n_pixels, batch.image, batch.origins, batch.directions, self.grad_o, self.grad_d,
            self.centre.tolist(), self.unit, self.gradients,
        )  # fmt: skip

    def after_step(self) -> None:
        """After each step: applies it to the poses, without what would move all cameras alike."""
        poses.take_out_common(self.n_images, self.unit, self.cameras, self.values)
        poses.move_cameras(self.n_images, self.centre.tolist(), self.unit, self.values, self.cameras)

    def poses(self) -> np.ndarray:
        """(n_images, 3, 4) f32 camera-to-world, as they are now."""
        return buffers.read(self.cameras).reshape(-1, CAMERA)[:, :12].reshape(-1, 3, 4).copy()

    def set_poses(self, poses: np.ndarray) -> None:
        """The inverse of ``poses``."""
        table = buffers.read(self.cameras).reshape(-1, CAMERA).copy()
        table[:, :12] = poses.reshape(-1, 12)
        buffers.write(self.cameras, table.reshape(-1))


def with_poses(views: Views, poses: np.ndarray) -> Views:
    """The photographs, taken from elsewhere."""
    return dataclasses.replace(views, cameras=dataclasses.replace(views.cameras, poses=poses))
