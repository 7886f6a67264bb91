"""A scene in another space than its loader chose: box, near and far (for ``ndc`` also the world's frame) found anew."""

from dataclasses import replace

import numpy as np

from tslim.data import geometry
from tslim.errors import SceneError
from tslim.scene.cameras import Cameras
from tslim.scene.domain import SPACES
from tslim.scene.scene import Scene

NEAR_QUANTILE = 0.002
"""Share of the sparse points that may lie in front of the near plane: some are always wrong."""
NEAR_PLANE = 0.75
"""The near plane lies at this share of the nearest depth, as for LLFF captures."""


def in_space(scene: Scene, space: str) -> Scene:
    """The scene in ``space`` ("box", "ndc" or "contracted"; see ``tslim.data.geometry``); itself if it is so already.

    Raises ``SceneError`` in one line where that is impossible: ``ndc`` needs cameras that all look one way, and sparse
    points to find the near plane from.
    """
    if space not in SPACES:
        raise SceneError(f"space {space}: expected {', '.join(SPACES)}")
    if space == scene.space:
        return scene
    if space == "ndc":
        return _forward_facing(scene)
    cameras = scene.train.cameras
    if space == "box":
        box = geometry.object_box(cameras)
        near, far = geometry.limits_of_box(cameras, box)
    else:
        box, near, far = geometry.surroundings(cameras, scene.points)
        if scene.space == "ndc":  # there near and far are the bounds of what was seen
            near, far = scene.near, max(far, scene.far)
    return replace(scene, space=space, box=box, near=near, far=far)


def _forward_facing(scene: Scene) -> Scene:
    every = Cameras.concatenate([scene.train.cameras, scene.test.cameras])
    if not geometry.faces_forward(every.poses.astype(np.float64)):
        raise SceneError(f"{scene.source}: space ndc is for cameras that all look one way, and these do not")
    if scene.points is None or not len(scene.points):
        raise SceneError(f"{scene.source}: space ndc needs sparse points to find its near plane from; there are none")
    world_to_mean = np.linalg.inv(geometry.mean_frame(every.poses.astype(np.float64)))
    points = scene.points.astype(np.float64) @ world_to_mean[:3, :3].T + world_to_mean[:3, 3]
    depth = -points[:, 2]
    if not (depth > 0).any():
        raise SceneError(f"{scene.source}: space ndc needs points in front of the cameras, and all lie behind")
    near = NEAR_PLANE * float(np.quantile(depth[depth > 0], NEAR_QUANTILE))
    moved = replace(every, poses=geometry.recentred(every.poses.astype(np.float64)))
    box = geometry.ndc_box(moved, near)
    if box is None:
        raise SceneError(f"{scene.source}: space ndc is impossible: not every ray reaches the near plane at {near:.3g}")

    n = len(scene.train)
    return replace(
        scene,
        train=replace(scene.train, cameras=moved[:n]),
        test=replace(scene.test, cameras=moved[n:]),
        space="ndc",
        box=box,
        near=near,
        far=max(float(np.quantile(depth[depth > 0], 1 - NEAR_QUANTILE)), 2 * near),
        points=points.astype(np.float32),
    )
