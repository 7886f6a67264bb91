"""A capture's world is turned so that what stands in it lies along the axes, and shows what it showed before."""

import numpy as np
import pytest

from tests import captures
from tslim.data import geometry
from tslim.data.orientation import LEAST_POINTS, along_axes, turned
from tslim.scene.domain import Domain
from tslim.scene.scene import Scene, Views


def room(n: int = 2000) -> np.ndarray:
    """(n, 3) points on the floor, on two walls and on a box in the room, a little off, and some anywhere."""
    rng = np.random.default_rng(2)
    points = rng.uniform(-2, 2, (n, 3))
    wall = rng.integers(0, 5, n)
    for k, (axis, at) in enumerate(((2, -2.0), (0, -2.0), (1, 2.0), (2, -1.2))):
        points[wall == k, axis] = at
    points[wall == 3, :2] *= 0.3
    return points + rng.normal(0, 0.01, (n, 3))


def scene_of(points: np.ndarray | None, space: str = "contracted") -> Scene:
    cameras = captures.ring(6)
    pixels = np.zeros(int(cameras.sizes.astype(np.int64).prod(1).sum()), np.uint32)
    offsets = np.concatenate([[0], np.cumsum(cameras.sizes.astype(np.int64).prod(1))])
    views = Views(cameras, pixels, offsets, tuple(map(str, range(6))))
    box, near, far = geometry.surroundings(cameras, points)
    domain = Domain.unchecked(box, near, far, space, None)
    return Scene("room", "tests", "none", views.subset([0, 1, 2, 3]), views.subset([4, 5]), domain, points)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_room_that_was_turned_anyhow_is_turned_back_but_for_which_axis_is_which(seed):
    rotation = geometry.rotations(np.random.default_rng(seed).normal(size=(1, 4)))[0]
    both = along_axes(room() @ rotation.T) @ rotation
    assert np.linalg.det(both) == pytest.approx(1)
    assert np.abs(both).max(0).min() > np.cos(np.radians(1.5)), "every axis of the room is one of the field's"


@pytest.mark.parametrize("seed", [0, 2])
def test_a_floor_and_a_wall_of_few_points_count_beside_a_round_thing_of_many(seed):
    rng = np.random.default_rng(seed)
    angle, height = rng.uniform(0, 2 * np.pi, 3000), rng.uniform(0, 1, 3000)
    can = np.stack([0.3 * np.cos(angle), 0.3 * np.sin(angle), height], 1)
    floor, wall, stray = rng.uniform(-1.5, 1.5, (3, 250, 3))
    floor[:, 2], wall[:, 1] = 0.0, 1.0
    points = np.concatenate([can, floor, wall, stray[:150]])
    points += rng.normal(0, 0.04, points.shape)
    rotation = geometry.rotations(rng.normal(size=(1, 4)))[0]
    both = along_axes(points @ rotation.T) @ rotation
    assert np.abs(both[:, 1:]).max(0).min() > np.cos(np.radians(4)), "the normals of floor and wall are axes"


def test_a_turned_scene_has_everything_where_the_photographs_show_it():
    rotation = geometry.rotations(np.random.default_rng(5).normal(size=(1, 4)))[0]
    scene = scene_of((room() @ rotation.T).astype(np.float32))
    after = turned(scene)
    assert np.abs(after.train.cameras.poses - scene.train.cameras.poses).max() > 0.1
    for before, now in ((scene.train, after.train), (scene.test, after.test)):
        for i in range(len(now)):
            pixels, depth = before.cameras.project(scene.points, i)
            again, same_depth = now.cameras.project(after.points, i)
            in_front = depth > 0.1
            np.testing.assert_allclose(again[in_front], pixels[in_front], atol=0.05, rtol=1e-3)
            np.testing.assert_allclose(same_depth, depth, atol=1e-4)
    # The cube's faces are the room's now, so it is measured anew.
    np.testing.assert_allclose(after.box, geometry.surroundings(after.train.cameras, after.points)[0], rtol=1e-5)


def test_scenes_with_too_few_points_and_objects_in_a_box_stay_as_they_are():
    points = room().astype(np.float32)
    for scene in (scene_of(None), scene_of(points[: LEAST_POINTS - 1]), scene_of(points, "box")):
        assert turned(scene) is scene
    assert turned(scene_of(points).placed(space="ndc")).space == "ndc"
