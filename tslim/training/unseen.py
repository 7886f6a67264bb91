"""Keeps plausible what no photograph shows, by rays of cameras that nobody held.

Photographs say nothing against density that none of them looks through: fog and splinters stay where a camera that
stood a little elsewhere would have them right in front of it. In each step rays of such cameras are followed for as far
as that space goes, and density there costs the penalty ``occlusion`` of ``kernels.penalties``. Photographs that look
through the same space go on saying what is really there. Where photographs are few, most surfaces are seen by one of
them alone, and could be anywhere along its rays: the penalty ``depth`` holds the depths of neighbouring rays together.
"""

import numpy as np

from kernels import unseen
from tslim.config import PATCH
from tslim.field.field import Field
from tslim.field.parameters import Gradients
from tslim.rendering.batch import Batch, Rays
from tslim.rendering.penalties import Penalties, penalise
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.scene import paths
from tslim.scene.cameras import Cameras


class UnseenCameras:
    """Rays of cameras around those of the photographs, and what they pay.

    Args:
        field: what is trained.
        cameras: those that photographs were taken with.
        n_rays: of unseen cameras, in each step.
        spread: how far they are from photographs' cameras: turned about what these look at by up to so many radians
            about each axis, shifted along each by up to this share of the distance to there.
        penalties: what their rays pay.
    """

    def __init__(
        self, field: Field, cameras: Cameras, n_rays: int, spread: float, penalties: Penalties, march: MarchConfig,
        seed: int,
    ) -> None:  # fmt: skip
        self.pipeline = Pipeline(field, Rays(n_rays), march)
        self.penalties, self.seed = penalties, seed
        centre, unit = paths.focus_and_distance(cameras)
        self.side = PATCH if penalties.depth else 1
        pixel = float(np.median(np.radians(cameras.fov) / cameras.sizes[:, 0]))
        self.wander = unseen.Wander(side=self.side, apart=pixel, seed=seed, centre=centre, unit=unit, spread=spread)
        """How far such cameras are from others; neighbouring rays as far apart as those of pixels, about"""

    def backward(self, seen: Batch, step: int, gradients: Gradients) -> None:
        """Adds the penalties' gradients, from rays beside the first ones of ``seen``, at the same ranks."""
        rays = self.pipeline.rays
        each = self.side**2
        n = min(rays.max_rays // each, seen.n_pixels) * each
        unseen.wander(
            n, self.wander, step, seen.origins, seen.directions, seen.ranks,
            rays.origins, rays.directions, rays.ranks,
        )  # fmt: skip
        penalise(self.pipeline, n, self.penalties, gradients, (self.seed, step), self.side)
