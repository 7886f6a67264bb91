"""The preview without its window: camera control and time budget."""

import dataclasses
import json
import math

import numpy as np
import pytest

from tslim.preview.budget import SCALES, Budget, Progression
from tslim.preview.camera import STEEPEST, OrbitCamera, every_kth_pixel
from tslim.preview.status import TrainingNews
from tslim.scene.cameras import Cameras
from tslim.scene.lenses import RADIAL
from tslim.training import events

BOX = np.array([[-1, -1, -1], [1, 1, 1]], np.float32)


def project(camera: OrbitCamera, point, height: int = 100, width: int = 100) -> tuple[float, float]:
    pixel, depth = camera.cameras(width, height).project(np.atleast_2d(point))
    assert depth[0] > 0
    return tuple(pixel[0])


def test_the_first_view_sees_the_whole_box():
    camera = OrbitCamera(BOX)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    pixels, depths = camera.cameras(100, 100).project(corners)
    assert (depths > 0).all() and (pixels >= 0).all() and (pixels <= 100).all()
    assert project(camera, [0, 0, 0]) == pytest.approx((50, 50), abs=1e-3)
    assert project(camera, [0, 0, 1])[1] < 50, "up must be up in the picture"


def test_orbiting_keeps_distance_and_target_and_stays_a_rotation():
    camera = OrbitCamera(BOX)
    distance = np.linalg.norm(camera.eye)
    rng = np.random.default_rng(0)
    for dx, dy in rng.uniform(-0.3, 0.3, (500, 2)):
        camera.orbit(dx, dy)
    assert np.linalg.norm(camera.eye) == pytest.approx(distance)
    assert np.allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)
    assert abs(camera.rotation[:, 0] @ camera.up) < 1e-6, "the horizon must stay level"
    camera.cameras(64, 64).validate()


def test_a_drag_to_the_right_turns_the_near_side_to_the_right_and_a_drag_down_lifts_the_camera():
    camera = OrbitCamera(BOX)
    near = 0.5 * camera.rotation[:, 2]
    before = project(camera, near)
    camera.orbit(0.05, 0)
    assert project(camera, near)[0] > before[0]
    height = camera.eye[2]
    camera.orbit(0, 0.05)
    assert camera.eye[2] > height


def test_orbiting_stops_before_the_pole():
    camera = OrbitCamera(BOX)
    for dy in (5.0, -5.0):
        camera.orbit(0.3, dy)
        assert math.asin(abs(camera.rotation[2, 2])) == pytest.approx(STEEPEST)
        assert camera.rotation[2, 1] > 0, "the picture must not turn upside down"


def test_panning_keeps_the_target_point_under_the_cursor():
    camera = OrbitCamera(BOX)
    point = camera.target.copy()
    camera.pan(0.1, -0.2)
    assert project(camera, point) == pytest.approx((60, 30), abs=1e-3)


def test_zooming_halves_the_distance_and_is_bounded():
    camera = OrbitCamera(BOX)
    distance = camera.distance
    camera.zoom(1)
    assert camera.distance == pytest.approx(distance / 2)
    camera.zoom(1000)
    assert camera.distance > 0
    camera.zoom(-1000)
    assert np.isfinite(camera.distance)


def test_flying_forward_moves_eye_and_target_along_the_view():
    camera = OrbitCamera(BOX)
    eye, target = camera.eye.copy(), camera.target.copy()
    camera.fly(0, 0, 1, 0.5)
    moved = camera.eye - eye
    assert np.allclose(moved, camera.target - target)
    assert np.allclose(moved / np.linalg.norm(moved), -camera.rotation[:, 2])


def dataset_camera(height: int = 60) -> Cameras:
    return Cameras.look_at([[3, 0.5, 1]], (0.1, 0.2, 0), (0, 0, 1), 40, (80, height))


def test_moving_away_from_a_data_set_camera_lets_go_of_it_without_a_jump():
    camera, dataset = OrbitCamera(BOX), dataset_camera()
    camera.snap(dataset)
    assert camera.exact is dataset
    camera.orbit(0, 0)
    assert camera.exact is None
    free = camera.cameras(80, 60)
    assert np.allclose(free.poses, dataset.poses, atol=1e-5)
    assert np.allclose(free.intrinsics, dataset.intrinsics, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 16, 200])
def test_every_kth_pixel_looks_through_the_very_centres_of_the_pixels_that_are_kept(k):
    dataset = dataset_camera()
    dataset = dataclasses.replace(
        dataset, lens=np.array([RADIAL]), distortion=np.array([[0.1, -0.05, 0.01, 0.02, 0, 0, 0, 0]])
    )
    picked = np.arange(80 * 60).reshape(60, 80)[k // 2 :: k, k // 2 :: k]
    small = every_kth_pixel(dataset, k)
    if picked.size == 0:
        assert tuple(small.sizes[0]) == (1, 1)
        return
    assert tuple(small.sizes[0]) == picked.shape[::-1]
    _, right = dataset.rays(0, dataset.pixel_centers()[picked.ravel()])
    _, ours = small.rays(0)
    assert np.allclose(ours, right, atol=1e-5)


def test_reset_returns_to_the_first_data_set_view():
    dataset = dataset_camera()
    camera = OrbitCamera.like(dataset, BOX)
    camera.orbit(0.4, 0.1)
    camera.pan(0.3, 0.3)
    camera.zoom(2)
    camera.reset()
    assert np.allclose(camera.cameras(80, 60).poses, dataset.poses, atol=1e-5)


def test_a_snapped_camera_with_the_scene_behind_it_gets_a_target_ahead():
    away = Cameras.look_at([[3, 0, 0]], (6, 0, 0), (0, 0, 1), 40, (80, 60))
    camera = OrbitCamera(BOX)
    camera.snap(away)
    assert camera.distance > 0 and camera.target[0] > 3
    assert np.allclose(camera.eye, [3, 0, 0], atol=1e-5)


def simulate(share: float, cost: float, seconds: float, step: float = 0.1) -> Budget:
    """Training steps of ``step`` seconds; after each a picture of ``cost`` is drawn where the budget allows."""
    budget, now = Budget(share), 0.0
    budget.tick(now)
    while now < seconds:
        now += step
        budget.tick(now)
        if budget.allows(cost):
            now += cost
            budget.charge(cost)
            budget.tick(now)
    return budget


@pytest.mark.parametrize("cost", [0.001, 0.02, 0.3, 3.0])
def test_the_budget_is_kept_over_time_whatever_a_picture_costs(cost):
    budget = simulate(0.10, cost, 200)
    assert budget.elapsed == pytest.approx(200, rel=0.05)
    assert budget.used <= 0.105 + cost / 200
    if cost >= 0.02:
        assert budget.used >= 0.08, "what the user granted is used"


def test_no_limit_means_no_limit():
    assert simulate(1.0, 0.5, 20).used > 0.8


def test_savings_are_capped_and_pauses_earn_nothing():
    budget = Budget(0.10, cap=1.0)
    budget.tick(0)
    budget.tick(1000)
    assert budget.saved == 1.0 and budget.allows(5.0)
    budget.charge(5.0)
    assert not budget.allows(0.001)
    budget.tick(2000, free=True)
    assert budget.saved == -4.0 and budget.elapsed == 1000
    budget.tick(2050)
    assert budget.saved == pytest.approx(1.0)


def learned(cost, **options) -> Progression:
    """A progression that has drawn a picture of every size, ``cost(pixels)`` seconds each."""
    made = Progression(**options)
    for k in range(3, 11):
        made.learn(4**k, cost(4**k))
    return made


def test_pictures_start_coarse_after_a_move_and_become_finer_until_full_size():
    progression = learned(lambda pixels: 1e-6 * pixels, moving_seconds=0.07)
    progression.restart(pixels=4**10)
    assert progression.scale == 0.25, "1.05 s at full size: a sixteenth of the pixels costs 0.066 s"
    seen = []
    while not progression.done:
        seen.append(progression.scale)
        progression.drawn()
    assert seen == [0.25, 0.5, 1.0]


def test_on_a_slow_machine_movement_uses_the_coarsest_picture_and_on_a_fast_one_the_full_one():
    slow, fast = learned(lambda pixels: 1.0 * pixels), learned(lambda pixels: 1e-9 * pixels)
    slow.restart(640_000)
    fast.restart(640_000)
    assert (slow.scale, fast.scale) == (SCALES[-1], 1.0)


def test_a_fixed_cost_per_picture_does_not_make_fine_pictures_look_dear_for_long():
    # 30 ms whatever the size, as on a device whose kernel launches dominate: from the coarsest to full size within
    # as many pictures as there are sizes.
    progression, scales = Progression(), []
    for _ in range(6):
        progression.restart(40_000, within=0.4)
        scales.append(progression.scale)
        progression.learn(round(40_000 * progression.scale**2), 0.03)
    assert scales[-1] == 1.0 and scales == sorted(scales)


def test_one_slow_picture_is_forgotten_as_soon_as_a_coarser_one_was_quick():
    progression = Progression()
    progression.learn(4**8, 5.0)
    assert progression.cost(4**8) == 5.0
    progression.learn(4**7, 0.01)
    assert progression.cost(4**8) == pytest.approx(0.04)


def test_the_cost_estimate_follows_what_pictures_really_cost():
    progression = Progression()
    for _ in range(20):
        progression.learn(1000, 0.01)
    assert progression.cost(1000) == pytest.approx(0.01)
    for _ in range(20):
        progression.learn(1000, 0.05)
    assert progression.cost(1000) == pytest.approx(0.05, rel=0.01)


def test_the_curves_of_a_resumed_run_begin_where_it_began(tmp_path):
    lines = [{"step": s, "rank": 2, "loss": 1 / s, "psnr": 10.0 + s, "seconds": 1.0} for s in (5, 10, 15)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    news = TrainingNews()
    news.note(events.Started(10, steps=20, memory={}, resumed=True, run_dir=tmp_path))
    assert news.history.steps == [5, 10] and news.history.psnr == [15.0, 20.0]
    news = TrainingNews()
    news.note(events.Started(0, steps=20, memory={}, run_dir=tmp_path))
    assert news.history.steps == []
