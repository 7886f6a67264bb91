"""Sparse points of structure from motion: which photograph shows which, and what training learns from that."""

import dataclasses

import captures
import numpy as np
import pytest

from tslim.config import FieldConfig, ScheduleConfig, TrainConfig
from tslim.data import load_scene
from tslim.device import buffers
from tslim.training import sparse_points
from tslim.training.sparse_points import SIGHTED_BY, TOLERANCE, sightings_of


@pytest.mark.parametrize("text", [False, True])
def test_it_is_known_which_photograph_of_a_colmap_model_shows_which_points(text, tmp_path):
    captures.write_colmap(tmp_path, text=text)  # images 1 to 3, the first of which is held out, show all points
    train = load_scene(tmp_path).train
    assert train.names[:2] == ("0001.jpg", "0002.jpg")
    assert [len(seen) for seen in train.sees] == [200, 200] + [0] * 6
    assert train.sees[0].tolist() == list(range(200))
    assert [len(seen) for seen in train.subset([3, 1]).sees] == [0, 200]


def test_points_that_are_left_out_are_not_counted(tmp_path):
    points = np.random.default_rng(2).normal(0, 0.5, (150, 3))
    points[40] = 1e9
    captures.write_colmap(tmp_path, points=points)
    scene = load_scene(tmp_path)
    seen = scene.train.sees[0]
    assert len(scene.points) == 149 and seen.tolist() == list(range(149))
    apart, expected = scene.points[seen[45]] - scene.points[seen[0]], points[46] - points[0]  # the world may be turned
    assert np.linalg.norm(apart) == pytest.approx(np.linalg.norm(expected), rel=1e-5)


def test_formats_that_do_not_say_what_photographs_show_have_no_sightings(tmp_path):
    captures.write_transforms(tmp_path)
    scene = load_scene(tmp_path)
    assert scene.train.sees == () and scene.train.subset([1, 0]).sees == ()
    assert not sparse_points.are_there(scene, TrainConfig())


def seen_scene(spread: float = 0.3, n_points: int = 40):
    """The built-in scene with points about its middle, in up to a share of the box's sides, which photographs show at
    random; the last is hardly shown."""
    from tslim import builtin_scene

    scene = builtin_scene(size=24, train=6, test=0)
    rng = np.random.default_rng(5)
    points = (scene.box.mean(0) + rng.uniform(-spread, spread, (n_points, 3)) * np.ptp(scene.box, axis=0)).astype(
        np.float32
    )
    shown = rng.random((6, n_points)) < 0.8
    shown[:SIGHTED_BY] = True
    shown[1:, -1] = False
    sees = tuple(np.flatnonzero(row) for row in shown)
    return dataclasses.replace(scene, points=points, train=dataclasses.replace(scene.train, sees=sees)), shown


def test_sightings_are_rays_to_points_that_enough_photographs_show(cpu):
    scene, shown = seen_scene()
    first, rows = sightings_of(scene)
    assert len(first) == 40 and first[-1] == len(rows) == shown[:, :-1].sum()
    origins = scene.train.cameras.origins
    for point in range(39):
        part = rows[first[point] : first[point + 1]]
        assert len(part) == shown[:, point].sum()
        np.testing.assert_allclose(part[:, :3], origins[shown[:, point]], atol=1e-6)
        middle = part[:, 6:].mean(1, keepdims=True)
        np.testing.assert_allclose(
            part[:, :3] + middle * part[:, 3:6], np.tile(scene.points[point], (len(part), 1)), atol=1e-5
        )
        np.testing.assert_allclose(np.ptp(part[:, 6:], axis=1), 2 * TOLERANCE * middle[:, 0], rtol=1e-5)


def test_rays_are_aimed_at_all_points_alike_and_the_same_in_every_run(cpu):
    from kernels import points

    scene, _ = seen_scene()
    first, rows = sightings_of(scene)
    n, found = 4096, []
    device_first, device_rows = buffers.upload(first), buffers.upload(rows.astype(np.float32).ravel())
    ranks = buffers.upload(np.array([4, 2, 3], np.int32))
    for _ in range(2):
        o, d, ends = buffers.array(3 * n), buffers.array(3 * n), buffers.array(2 * n)
        rank = buffers.array(n, np.int32)
        points.aim(n, 39, 3, 11, 5, device_first, device_rows, ranks, o, d, rank, ends)
        found.append([buffers.read(a) for a in (o, d, ends, rank)])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
    o, d, ends, rank = found[0]
    assert rank[:6].tolist() == [4, 2, 3, 4, 2, 3]
    drawn = np.concatenate([o.reshape(n, 3), d.reshape(n, 3), ends.reshape(n, 2)], 1)
    number = np.argmin(np.abs(drawn[:, None] - rows.astype(np.float32)).sum(-1), 1)
    np.testing.assert_allclose(drawn, rows[number], rtol=1e-5, atol=1e-6)
    counts = np.bincount(np.searchsorted(first, number, "right") - 1, minlength=39)
    assert counts.min() > 0.6 * n / 39 and counts.max() < 1.5 * n / 39
    assert len(np.unique(number)) == len(rows)


def test_gradients_of_weights_are_those_of_what_the_kernel_says(cpu):
    from kernels import points

    rng = np.random.default_rng(1)
    n, each, weight = 12, 9, 0.7
    used = np.stack([each * np.arange(n), each * np.arange(n) + rng.integers(0, each + 1, n)], 1).astype(np.int32)
    t = np.sort(rng.uniform(1, 5, (n, each)), axis=1).astype(np.float32)
    w = (rng.random((n, each)) / each).astype(np.float32)
    low = rng.uniform(1.5, 4, n)
    ends = np.stack([low, low + 0.8], 1).astype(np.float32)
    out = buffers.array(n * each)
    device = [buffers.upload(a.ravel()) for a in (ends, used, t, w)]
    points.weight_gradients(n, weight, *device, out)
    analytic = buffers.read(out).reshape(n, each)

    def loss(w: np.ndarray) -> float:
        total = 0.0
        for ray in range(n):
            part = slice(0, used[ray, 1] - used[ray, 0])
            place, weights = t[ray, part], w[ray, part]
            before = weights[place < ends[ray, 0]].sum()
            stopped = weights[(place >= ends[ray, 0]) & (place <= ends[ray, 1])].sum()
            total += weight * (before + (1 - stopped) ** 2)
        return total

    for ray in range(n):
        for i in range(used[ray, 1] - used[ray, 0]):
            changed = w.astype(np.float64)
            changed[ray, i] += 1e-4
            more = loss(changed)
            changed[ray, i] -= 2e-4
            assert (more - loss(changed)) / 2e-4 == pytest.approx(analytic[ray, i], abs=1e-6)


def test_training_puts_surfaces_at_the_points_and_nothing_before_them(cpu):
    from tslim.training.trainer import Trainer

    scene, _ = seen_scene(0.05)
    middle, half = scene.box.mean(0), 0.5 * np.ptp(scene.box, axis=0)
    towards = scene.train.cameras.origins - middle
    towards *= (0.6 * half / np.abs(towards)).min(1, keepdims=True)
    before = (middle + towards).astype(np.float32)  # between the points and each camera
    density = {}
    for weight in (0.0, 0.3):
        settings = TrainConfig(
            field=FieldConfig(max_rank=4, density_shift=-3.0, decoder_width=32), schedule=ScheduleConfig("fixed"),
            steps=30, batch_rays=256, grid_start=16, grid_end=16, grow_steps=(), occupancy_steps=(),
            point_depth=weight, point_rays=64,
        )  # fmt: skip
        trainer = Trainer(Trainer.new_field(scene, settings), scene, settings)
        list(trainer.run())
        foreseen = trainer.memory.get("rays to sparse points", 0)
        assert foreseen >= trainer.points.pipeline.nbytes if weight else foreseen == 0
        density[weight] = [float(np.mean(trainer.field.density_at(at))) for at in (scene.points, before)]
    assert density[0.3][0] > 1.1 * density[0.0][0] and density[0.3][1] < density[0.0][1]


def test_points_are_not_learned_from_in_ndc_and_while_poses_move(cpu):
    scene, _ = seen_scene()
    assert sparse_points.are_there(scene, TrainConfig())
    assert not sparse_points.are_there(scene.placed(space="ndc"), TrainConfig())
    assert not sparse_points.are_there(scene, TrainConfig(refine_poses=True))


def test_rays_reach_their_points_in_the_coordinates_of_the_field():
    from types import SimpleNamespace

    from tslim.training.sparse_points import _reach

    inside = [-0.5, 0, 0, 1, 0, 0, 0.9, 1.0]
    beyond = [0, 0, 0, 1, 0, 0, 2.8, 3.0]  # x = 3 is contracted to 2 - 1/3
    cube = np.array([[-1.0] * 3, [1.0] * 3])
    for row, in_world, in_cube in ((inside, 1.0, 1.0), (beyond, 3.0, 5 / 3)):
        rows = np.array([row] * 3)
        assert _reach(rows, SimpleNamespace(cube=None)) == pytest.approx(in_world)
        assert _reach(rows, SimpleNamespace(cube=cube)) == pytest.approx(in_cube, rel=1e-3)
