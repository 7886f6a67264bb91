"""The built-in scene: an independent picture of known solids, the same on every run."""

import numpy as np
import pytest

import tslim
from tslim.data import builtin, scene_from_settings
from tslim.errors import SceneError
from tslim.scene.cameras import Cameras

GLOBE, RADIUS = np.array([0, 0, 0.24]), 0.36


@pytest.fixture(scope="module")
def scene(cpu):
    return tslim.builtin_scene(size=40, train=6, test=3, seed=1)


def views_from(eyes, size=64, fov=40.0, target=(0, 0, 0)):
    return builtin.render_views(Cameras.look_at(np.array(eyes, float), target, (0, 0, 1), fov, (size, size)))


def test_it_has_train_and_test_views_with_alpha(scene):
    assert (len(scene.train), len(scene.test)) == (6, 3)
    assert scene.train.cameras.sizes.tolist() == [[40, 40]] * 6
    assert scene.train.has_alpha()
    assert scene.background == (1, 1, 1)
    assert scene.warnings == ()


def test_one_seed_gives_the_same_bits_and_another_seed_other_cameras(scene):
    again = tslim.builtin_scene(size=40, train=6, test=3, seed=1)
    assert np.array_equal(again.train.pixels, scene.train.pixels)
    assert np.array_equal(again.test.cameras.poses, scene.test.cameras.poses)
    other = tslim.builtin_scene(size=40, train=6, test=3, seed=2)
    assert not np.array_equal(other.train.cameras.poses, scene.train.cameras.poses)


def test_cameras_stand_on_the_upper_hemisphere_and_look_at_the_origin(scene):
    cameras = Cameras.concatenate([scene.train.cameras, scene.test.cameras])
    assert np.allclose(np.linalg.norm(cameras.origins, axis=1), 4, atol=1e-5)
    assert (cameras.origins[:, 2] > 0.2).all()
    assert np.allclose(cameras.origins + 4 * cameras.forward, 0, atol=1e-5)
    middle, _ = cameras.project(np.zeros((1, 3)))
    assert np.allclose(middle, 20, atol=1e-3)


def test_many_cameras_cover_all_directions_evenly():
    cameras = builtin.hemisphere(80, 8, np.random.default_rng(0))
    directions = cameras.origins / 4
    nearest = np.sort(directions @ directions.T, axis=1)[:, -2]
    assert np.degrees(np.arccos(nearest)).max() < 25  # nobody stands alone
    quadrant = 2 * (directions[:, 0] > 0) + (directions[:, 1] > 0)
    assert np.bincount(quadrant).min() >= 14  # 20 each if perfectly even


def test_everything_lies_inside_the_box_and_the_ray_limits(scene):
    # The table's radius is 1.2 and the globe's axis ends below 1: from above, and from the side, nothing is cut.
    low, high = scene.box
    for eye in ((0.01, 0, 6.0), (6.0, 0, 0.3), (0, 6.0, 0.3)):
        views = views_from([eye], size=96, fov=36.0)
        rows, columns = np.nonzero(views.rgba(0)[..., 3])
        origins, directions = views.cameras.rays(0, np.stack([columns + 0.5, rows + 0.5], 1))
        with np.errstate(divide="ignore"):
            slabs = np.stack([(low - origins) / directions, (high - origins) / directions])
        assert (slabs.min(0).max(1) < slabs.max(0).min(1)).all()
        assert len(rows) > 500


def test_the_globe_is_where_geometry_says(cpu):
    """A camera at the globe's height: its silhouette is a disc whose angular radius is asin(r / d)."""
    views = views_from([(0, 9.0, 0.24)], size=200, fov=6.0, target=GLOBE)
    blue = views.rgba(0)[..., :3].astype(int)
    sea = (blue[..., 2] > blue[..., 0] + 30) & (views.rgba(0)[..., 3] == 255)
    focal = views.cameras.intrinsics[0, 0]
    expected = focal * np.tan(np.arcsin(RADIUS / 9.0))
    rows, columns = np.nonzero(sea)
    radius = np.hypot(columns + 0.5 - 100, rows + 0.5 - 100)
    inside = radius[radius < 1.2 * expected]
    assert abs(inside.max() - expected) < 2.0
    assert len(inside) > 0.2 * np.pi * expected**2


def test_known_points_land_on_the_pixels_where_they_are_seen(scene):
    """The red ball at the end of the globe's axis, projected by the cameras' own geometry, is red where it falls."""
    pole = np.array([0.35, 0.15, 0.92])
    ball = GLOBE + 0.72 * pole / np.linalg.norm(pole)
    eyes = [(3, -2, 2.0), (-2, -3, 2.5), (0, 4, 1.0), (3, 3, 2.0)]
    views = views_from(eyes, size=300)
    for i in range(len(eyes)):
        (x, y), _ = (a[0] for a in views.cameras.project(ball[None], i))
        red, green, blue, alpha = views.rgba(i)[int(y), int(x)].astype(int)
        assert alpha == 255
        assert red > 1.6 * max(green, blue), (eyes[i], red, green, blue)


def test_edges_cover_pixels_in_part_and_the_rest_fully_or_not_at_all(scene):
    alpha = scene.train.rgba(0)[..., 3]
    partial = (alpha > 0) & (alpha < 255)
    assert 0.01 < partial.mean() < 0.3
    assert (alpha == 0).mean() > 0.2
    assert (alpha == 255).mean() > 0.2
    # coverage counts sub-samples: 4 of them, or 16
    assert set(np.unique(alpha)) <= {int(255 * k / 16 + 0.5) for k in range(17)}


def test_alpha_averages_to_the_covered_area(cpu):
    """A picture and one three times larger, averaged, agree: edges are neither grown nor shrunk."""
    from tslim.data.image_file import area_downscale

    small, large = views_from([(3, -2, 1.5)], 50), views_from([(3, -2, 1.5)], 150)
    averaged = area_downscale(large.rgba(0), 3)
    difference = small.rgba(0)[..., 3].astype(float) - averaged[..., 3]
    assert abs(difference.mean()) < 0.7
    assert np.abs(difference).mean() < 3
    assert (
        np.abs(small.image(0) - area_downscale(large.rgba(0), 3)[..., :3] / 255)[averaged[..., 3] == 255].mean() < 0.03
    )


def test_highlights_move_with_the_eye(cpu):
    """The brightest spot of the globe is at different places of its surface for different cameras."""
    spots = []
    for eye in ((3.2, -2.4, 1.6), (3.6, 0.6, 1.6)):
        views = views_from([eye], size=200, fov=14.0, target=GLOBE)
        image = views.image(0)
        disc = np.hypot(*(np.indices((200, 200)) + 0.5 - 100)) < 0.5 * views.cameras.intrinsics[0, 0] * RADIUS / 4
        y, x = np.unravel_index(np.argmax(np.where(disc, image.sum(-1), 0)), disc.shape)
        origins, directions = views.cameras.rays(0, np.array([[x + 0.5, y + 0.5]]))
        to_center = GLOBE - origins[0]
        along = to_center @ directions[0]
        t = along - np.sqrt(RADIUS**2 - (to_center @ to_center - along**2))
        spots.append((origins[0] + t * directions[0] - GLOBE) / RADIUS)
    assert np.degrees(np.arccos(np.clip(spots[0] @ spots[1], -1, 1))) > 8


def test_it_comes_out_of_run_settings_with_options(cpu):
    scene = scene_from_settings({"downscale": 5, "max_images": 3, "background": "black"})
    assert (len(scene.train), len(scene.test)) == (3, 3)
    assert scene.train.cameras.sizes[0].tolist() == [builtin.SIZE // 5] * 2
    assert scene.background == (0, 0, 0)


def test_it_may_have_no_test_views(cpu):
    assert len(tslim.builtin_scene(size=8, train=1, test=0).test) == 0


@pytest.mark.parametrize("arguments", [{"size": 4}, {"train": 0}, {"test": -1}])
def test_impossible_arguments_are_an_error(cpu, arguments):
    with pytest.raises(SceneError, match="expected at least 8, 1 and 0"):
        tslim.builtin_scene(**arguments)
