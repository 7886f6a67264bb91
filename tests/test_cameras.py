"""Cameras and camera paths: conventions that everything else relies on."""

import numpy as np
import pytest

from tslim.errors import SceneError
from tslim.scene import paths
from tslim.scene.cameras import Cameras, look_at_poses

IDENTITY = np.eye(4)[None, :3]


def test_a_camera_looks_along_minus_z_with_x_right_and_y_up():
    camera = Cameras.pinhole(IDENTITY, 100.0, (40, 20))
    # centre (20, 10); 0.1 right and 0.2 up at depth 2 move by 100 · 0.1 / 2 = 5 right and 10 up, i.e. to a smaller row
    pixels, depth = camera.project(np.array([[0, 0, -2.0], [0.1, 0, -2.0], [0, 0.2, -2.0]]))
    assert np.allclose(pixels, [[20, 10], [25, 10], [20, 0]])
    assert np.allclose(depth, 2)


def test_rays_pass_through_pixel_centres_at_one_half():
    camera = Cameras.pinhole(IDENTITY, 2.0, (2, 2))
    origins, directions = camera.rays()
    # top left pixel centre (0.5, 0.5): ((0.5 − 1) / 2, −(0.5 − 1) / 2, −1) = (−0.25, 0.25, −1)
    assert np.allclose(directions[0] / -directions[0, 2], [-0.25, 0.25, -1])
    assert np.allclose(directions[1] / -directions[1, 2], [0.25, 0.25, -1])
    assert np.allclose(directions[2] / -directions[2, 2], [-0.25, -0.25, -1])
    assert np.allclose(origins, 0)


def test_project_undoes_rays_for_any_pose_and_principal_point():
    rng = np.random.default_rng(1)
    poses = look_at_poses(rng.normal(size=(3, 3)) * 4, rng.normal(size=(3, 3)), (0.1, 0.2, 1))
    cameras = Cameras.pinhole(poses, np.array([[90, 110.0]] * 3), (64, 48), (30.2, 25.1))
    pixels = rng.uniform(0, 48, (20, 2))
    for i in range(3):
        origins, directions = cameras.rays(i, pixels)
        back, _ = cameras.project(origins + rng.uniform(0.5, 9, (20, 1)) * directions, i)
        assert np.allclose(back, pixels, atol=1e-3)


def test_look_at_keeps_up_upwards_and_the_target_in_the_middle():
    camera = Cameras.look_at(np.array([[3.0, -2, 1]]), (0.2, 0, 0), (0, 0, 1), 50, (100, 80))
    camera.validate()
    pixels, _ = camera.project(np.array([[0.2, 0, 0], [0.2, 0, 0.1]]))
    assert np.allclose(pixels[0], [50, 40], atol=1e-3)
    assert pixels[1, 1] < 39
    assert np.isclose(pixels[1, 0], 50, atol=1e-3)


def test_a_view_straight_down_is_a_valid_pose():
    camera = Cameras.look_at(np.array([[0.0, 0, 4]]), (0, 0, 0), (0, 0, 1), 50, (100, 80))
    camera.validate()
    assert np.allclose(camera.forward, [[0, 0, -1]])


def test_half_resolution_keeps_the_rays():
    camera = Cameras.pinhole(IDENTITY, 50.0, (41, 31), (20, 16))
    half = camera.scaled(1 / 2)
    assert half.sizes.tolist() == [[20, 15]]
    # the middle of the 2×2 block at rows 6, 7 and columns 4, 5 is its pixel (2, 3)
    _, of_block = camera.rays(0, np.array([[5.0, 7.0]]))
    _, of_pixel = half.rays(0, np.array([[2.5, 3.5]]))
    assert np.allclose(of_block, of_pixel)


def test_indexing_gives_cameras_in_the_asked_order():
    cameras = paths.Orbit().cameras(5)
    assert np.array_equal(cameras[[3, 1]].poses, cameras.poses[[3, 1]])
    assert np.array_equal(cameras[-1].poses, cameras.poses[4:])
    assert len(cameras[np.array([True, False, True, False, False])]) == 2
    assert np.array_equal(Cameras.concatenate([cameras[:2], cameras[2:]]).poses, cameras.poses)
    with pytest.raises(IndexError, match="camera 5 of 5"):
        cameras[5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.poses.__setitem__((1, 0, 3), np.nan), "frame 1 has NaN or infinity in its pose"),
        (lambda c: c.poses.__setitem__((1, 0, 0), 1.1), "frame 1 has a pose whose rotation is not orthonormal"),
        (lambda c: c.poses.__imul__(-1), r"frame 0 \(and 2 more\) has a mirrored pose"),
        (lambda c: c.intrinsics.__setitem__((2, 0), 0), "frame 2 has a focal length that is not positive"),
        (lambda c: c.intrinsics.__setitem__((2, 3), np.inf), "frame 2 has NaN or infinity in its intrinsics"),
        (lambda c: c.sizes.__setitem__((0, 1), 0), "frame 0 has an image of zero size"),
        (lambda c: c.lens.__setitem__(1, 7), "frame 1 has an unknown lens model"),
        (lambda c: c.distortion.__setitem__((1, 7), np.nan), "frame 1 has NaN or infinity in its distortion"),
    ],
)
def test_an_impossible_camera_is_named(change, message):
    cameras = Cameras.pinhole(np.repeat(IDENTITY, 3, 0), 100.0, (40, 20))
    cameras.validate()
    change(cameras)
    with pytest.raises(SceneError, match=message):
        cameras.validate()


def test_arrays_of_the_wrong_shape_are_refused():
    with pytest.raises(SceneError, match=r"intrinsics has shape \(2, 4\), expected \(1, 4\)"):
        Cameras(IDENTITY, np.ones((2, 4)), np.ones((1, 2)), np.zeros(1), np.zeros((1, 8)))


def test_orbit_cameras_look_at_the_centre_from_one_distance_and_elevation():
    orbit = paths.Orbit(center=(1.0, -2.0, 0.5), radius=3.0, elevation=30.0, up=(0.0, 1.0, 0.0))
    cameras = orbit.cameras(7)
    cameras.validate()
    from_center = cameras.origins - np.array(orbit.center)
    assert np.allclose(np.linalg.norm(from_center, axis=1), 3, atol=1e-5)
    assert np.allclose(from_center[:, 1], 1.5, atol=1e-5)  # 3 sin 30°
    assert np.allclose(from_center + 3 * cameras.forward, 0, atol=1e-5)
    assert np.allclose(from_center.mean(0)[[0, 2]], 0, atol=1e-5)  # evenly spaced, all the way round
    assert (cameras.poses[:, 1, 1] > 0).all()  # up is up


def test_an_orbit_is_found_again_from_its_own_cameras():
    orbit = paths.Orbit((0.5, 0.0, 0.25), 2.5, 40.0, (0.0, 0.0, 1.0), 55.0, (320, 200))
    found = paths.fit_orbit(orbit.cameras(12), np.array(orbit.center))
    assert np.allclose([found.radius, found.elevation, found.fov], [2.5, 40, 55], atol=1e-3)
    assert found.up == (0, 0, 1)
    assert found.size == (320, 200)


@pytest.mark.parametrize("path", [paths.Orbit(), paths.Spiral((0, 0, 0), (1, 0, 0), (0, 1, 0), (0.1, 0.1, 0.05), 3.0)])
def test_a_path_survives_json(path):
    import json

    assert paths.path_from_dict(json.loads(json.dumps(path.to_dict()))) == path


def test_what_is_not_a_path_is_refused():
    with pytest.raises(SceneError, match="known: orbit, spiral"):
        paths.path_from_dict({"path": "square"})
    with pytest.raises(SceneError, match="0 frames"):
        paths.Orbit().cameras(0)
    with pytest.raises(SceneError, match="radius -1"):
        paths.Orbit(radius=-1.0).cameras(3)


def test_a_spiral_stays_among_its_cameras_and_keeps_the_focus_in_the_middle():
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3), [2.0]), -1).reshape(-1, 3)
    cameras = Cameras.look_at(grid, grid - (0, 0, 1), (0, 1, 0), 60, (50, 40))
    spiral = paths.fit_spiral(cameras, near=1.0, far=4.0)
    video = spiral.cameras(24)
    video.validate()
    assert np.abs(video.origins[:, 0]).max() <= 1 + 1e-6
    assert np.abs(video.origins[:, 1]).max() <= 0.5 + 1e-6
    focus = np.array([[0, 0, 2.0 - spiral.focus]])
    for i in range(24):
        assert np.allclose(video.project(focus, i)[0], [25, 20], atol=1e-3)


def test_the_world_is_upright_even_when_the_cameras_lay_on_their_side():
    cameras = paths.Orbit(up=(0.0, 0.0, 1.0)).cameras(8)
    assert np.array_equal(paths.estimate_up(cameras), [0, 0, 1])
    for quarter in (np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])):
        rolled = cameras.poses.copy()
        rolled[:, :, :3] = rolled[:, :, :3] @ quarter
        assert np.array_equal(paths.estimate_up(Cameras.pinhole(rolled, 100.0, (40, 20))), [0, 0, 1])


def test_the_focus_point_is_where_the_axes_meet():
    cameras = paths.Orbit(center=(3.0, 1.0, -2.0)).cameras(9)
    assert np.allclose(paths.focus_point(cameras), [3, 1, -2], atol=1e-4)
    parallel = Cameras.pinhole(np.repeat(IDENTITY, 2, 0), 10.0, (4, 4))
    assert np.allclose(paths.focus_point(parallel), 0)


def test_cameras_surround_what_they_stand_all_around_of():
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    eyes = np.stack([3 * np.cos(turn), 3 * np.sin(turn), np.ones(12)], 1) + (5.0, 0.0, 0.0)
    ring = Cameras.look_at(eyes, (5, 0, 0), (0, 0, 1), 50, (8, 6))
    assert paths.surround(ring, np.array([5.0, 0, 0]))
    assert paths.surround(ring[np.arange(12) != 3], np.array([5.0, 0, 0]))  # a gap of 60 degrees
    assert not paths.surround(ring[:8], np.array([5.0, 0, 0]))  # 150 degrees are missing


SPIRAL = paths.Spiral((0.0, 0.0, 4.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.1, 0.1, 0.05), 4.0, size=(400, 300))


@pytest.mark.parametrize("path", [paths.Orbit(size=(400, 400)), SPIRAL], ids=["orbit", "spiral"])
@pytest.mark.parametrize("size", [(800, 600), (800, 300), (300, 800), (200, 200), (64, 1), (1, 64)])
def test_in_another_size_a_path_shows_all_that_it_showed_and_more_at_two_sides(path, size):
    """The corners of the picture before lie inside the new one, and touch its edge in one direction."""
    before, after = path.cameras(3), path.sized(size).cameras(3)
    assert after.sizes[0].tolist() == list(size)
    corners = np.array([[0, 0], [path.size[0], path.size[1]]], float)
    origins, directions = before.rays(1, corners)
    inside = after.project(origins + directions, 1)[0]
    assert inside.min() > -1e-3 and (inside < np.array(size) + 1e-3).all()
    spans = (inside[1] - inside[0]) / np.array(size)
    assert np.isclose(spans.max(), 1, atol=1e-4)
    assert np.allclose(after.intrinsics[0, 0], after.intrinsics[0, 1])  # pixels stay square


def test_a_spiral_among_cameras_all_around_is_one_on_their_orbit():
    """The middle of a ring of cameras is no viewpoint: the object stands there."""
    orbit = paths.Orbit(center=(0.5, 0.0, 0.2), radius=3.0, elevation=40.0)
    ring = orbit.cameras(12)
    spiral = paths.spiral_on_one_side(paths.fit_spiral(ring, 1.0, 5.0), paths.fit_orbit(ring, np.array(orbit.center)))
    video = spiral.cameras(8)
    video.validate()
    distance = np.linalg.norm(video.origins - np.array(orbit.center), axis=1)
    assert (np.abs(distance - 3) < 0.8).all()
    for i in range(8):  # the centre stays in the middle of the picture
        assert np.allclose(video.project(np.array([orbit.center]), i)[0], video.sizes[i] / 2, atol=1e-2)


def test_a_spiral_of_cameras_on_one_side_stays_theirs():
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3), [4.0]), -1).reshape(-1, 3)
    cameras = Cameras.look_at(grid, (0, 0, 0), (0, 1, 0), 60, (50, 40))
    spiral = paths.fit_spiral(cameras, 1.0, 4.0)
    assert paths.spiral_on_one_side(spiral, paths.fit_orbit(cameras, np.zeros(3))) is spiral
