"""Cameras that nobody held: where they stand, and what density in front of them costs."""

import numpy as np
import pytest

from tests.device_field import on_host
from tests.test_gradients_pipeline import N_RAYS, make_field, make_rays, run
from tslim.config import FieldConfig, ScheduleConfig, TrainConfig
from tslim.device import buffers
from tslim.training.step import sampled_share


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_rays_are_turned_about_the_centre_and_shifted_within_the_spread(cpu, spread):
    from kernels import unseen

    origins, directions, _ = make_rays()
    centre, unit = np.array([0.2, -0.1, 0.3]), 2.0
    rays = [buffers.upload(a.astype(np.float32).reshape(-1)) for a in (origins, directions)]
    ranks, found = buffers.upload(np.arange(N_RAYS, dtype=np.int32)), []
    for _ in range(2):
        found.append([buffers.array(3 * N_RAYS), buffers.array(3 * N_RAYS), buffers.array(N_RAYS, np.int32)])
        how = unseen.Wander(side=1, apart=0.0, seed=7, centre=centre.tolist(), unit=unit, spread=spread)
        unseen.wander(N_RAYS, how, 3, *rays, ranks, *found[-1])
    assert (buffers.read(found[0][2]) == np.arange(N_RAYS)).all()
    o, d = (buffers.read(a).reshape(-1, 3) for a in found[0][:2])
    assert np.array_equal(o, buffers.read(found[1][0]).reshape(-1, 3))  # the same in every run
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), np.linalg.norm(directions, axis=1), rtol=1e-5)
    turned = np.degrees(np.arccos(np.clip((d * directions).sum(1), -1, 1)))
    arms = np.linalg.norm(origins - centre, axis=1)
    assert (turned <= np.degrees(np.sqrt(3) * spread) + 0.1).all() and (turned.mean() > 3) == (spread > 0)
    assert (np.abs(np.linalg.norm(o - centre, axis=1) - arms) <= np.sqrt(3) * spread * unit + 1e-5).all()


def test_neighbours_of_a_patch_stand_in_one_place_and_so_far_apart(cpu):
    from kernels import unseen

    side, apart, n = 4, 0.01, 3
    origins, directions, _ = (a[:n] for a in make_rays())
    rays = [buffers.upload(a.astype(np.float32).reshape(-1)) for a in (origins, directions)]
    ranks = buffers.upload(np.array([3, 1, 2], np.int32))
    moved = [buffers.array(3 * 16 * n), buffers.array(3 * 16 * n), buffers.array(16 * n, np.int32)]
    how = unseen.Wander(side=side, apart=apart, seed=7, centre=(0.0, 0.0, 0.0), unit=1.0, spread=0.0)
    unseen.wander(16 * n, how, 3, *rays, ranks, *moved)
    o, d = (buffers.read(a).reshape(n, side, side, 3) for a in moved[:2])
    assert (buffers.read(moved[2]).reshape(n, -1) == [[3], [1], [2]]).all()
    np.testing.assert_allclose(o, np.broadcast_to(origins[:, None, None], o.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(d, axis=-1), 1, rtol=1e-5)
    for one, other in ((d[:, 1:], d[:, :-1]), (d[:, :, 1:], d[:, :, :-1])):
        np.testing.assert_allclose(np.linalg.norm(one - other, axis=-1), apart, rtol=2e-3)
    middle = d.mean((1, 2))
    np.testing.assert_allclose(middle / np.linalg.norm(middle, axis=1, keepdims=True), directions, atol=1e-5)


def test_smooth_depth_has_the_gradient_of_the_squared_differences(cpu):
    from tslim.field.parameters import Gradients
    from tslim.rendering.penalties import Penalties, penalise

    field, _ = make_field()
    pipeline, gradients = run(field), Gradients(field)
    for values in (pipeline.rays.origins, pipeline.rays.directions):  # patches of 4 × 4 that look about one way
        moved = np.repeat(buffers.read(values).reshape(-1, 3)[8::16][: N_RAYS // 16], 16, 0)
        buffers.write(
            values, (moved + np.random.default_rng(3).normal(0, 0.02, moved.shape)).astype(np.float32).ravel()
        )
    d = buffers.read(pipeline.rays.directions).reshape(-1, 3)
    buffers.write(pipeline.rays.directions, (d / np.linalg.norm(d, axis=1, keepdims=True)).ravel())

    def loss() -> float:
        penalise(pipeline, N_RAYS, Penalties(depth=1e-9), Gradients(field), (3, 7), 4)
        begin, length = pipeline.space.extent
        used = buffers.read(pipeline.ray_used)
        along, weight = (buffers.read(a).astype(np.float64) for a in (pipeline.sample_along, pipeline.sample_weight))
        place = np.ones(N_RAYS)
        for ray in range(N_RAYS):
            part = slice(used[2 * ray], used[2 * ray + 1])
            place[ray] -= (weight[part] * (1 - (along[part] - begin) / length)).sum()
        place = place.reshape(-1, 4, 4)
        squares = (np.diff(place, axis=1) ** 2).sum() + (np.diff(place, axis=2) ** 2).sum()
        return squares / (N_RAYS // 16 * 24)

    penalise(pipeline, N_RAYS, Penalties(depth=1.0), gradients, (3, 7), 4)
    in_use = buffers.CHUNK * gradients.density._in_use
    analytic = buffers.read(gradients.density.values).astype(np.float64).ravel()[:in_use]
    values = buffers.read(field.density.values).copy()
    size, checked = 2e-2, np.argsort(-np.abs(analytic))[:3]
    assert abs(analytic[checked[-1]]) > 1e-4
    for i in checked:
        found = []
        for sign in (1, -1):
            changed = values.copy()
            changed.reshape(-1)[i] += sign * size
            buffers.write(field.density.values, changed)
            found.append(loss())
        buffers.write(field.density.values, values)
        assert (found[0] - found[1]) / (2 * size) == pytest.approx(analytic[i], rel=0.05)


def test_annealed_rays_are_sampled_about_the_middle_of_their_length_first(cpu):
    field, _ = make_field(occupancy=False)
    pipeline = run(field)
    ranks = buffers.read(pipeline.rays.ranks)
    kept = {}
    for within in (1.0, 0.5):
        pipeline.forward(N_RAYS, max_rank=int(ranks.max()), background=(1.0, 1.0, 1.0), within=within)
        kept[within] = buffers.read(pipeline.sample_t)[: pipeline.n_samples]
    begin, length = pipeline.space.extent
    step = pipeline.step_size
    assert 0 < len(kept[0.5]) < len(kept[1.0])
    assert kept[0.5].min() >= begin + 0.25 * length - step and kept[0.5].max() <= begin + 0.75 * length + step
    pipeline.forward(N_RAYS, max_rank=int(ranks.max()), background=(1.0, 1.0, 1.0))
    assert pipeline.n_samples == len(kept[1.0])


def test_the_window_of_annealed_sampling_opens_over_its_share_of_the_run(cpu):
    from tslim import builtin_scene
    from tslim.errors import ConfigError
    from tslim.training.trainer import Trainer

    scene = builtin_scene(size=24, train=4, test=0)
    settings = TrainConfig(
        field=FieldConfig(max_rank=2, decoder_width=16), schedule=ScheduleConfig("fixed"), steps=40, batch_rays=64,
        grid_start=8, grid_end=8, grow_steps=(), occupancy_steps=(), anneal_share=0.5, unseen_depth=0.1,
    )  # fmt: skip
    trainer = Trainer(Trainer.new_field(scene, settings), scene, settings)
    shares = []
    for trainer.step in (0, 10, 15, 20, 39):
        shares.append(sampled_share(trainer))
    assert shares == [0.5, 0.5, 0.75, 1.0, 1.0]
    trainer.step = 0
    assert next(trainer.run()).step == 0 and trainer.unseen.side == 8
    with pytest.raises(ConfigError, match="no middle"):
        open_space = scene.placed(space="contracted", box=np.array([[-2.0] * 3, [2.0] * 3], np.float32))
        Trainer(Trainer.new_field(open_space, settings), open_space, settings)


@pytest.mark.parametrize("occlusion_range", [0.2, 0.6])
def test_a_penalty_alone_has_the_gradients_that_it_has_beside_an_error_of_zero(cpu, occlusion_range):
    from tslim.field.parameters import Gradients
    from tslim.rendering.penalties import Penalties, penalise

    field, _ = make_field()
    penalties = Penalties(occlusion=0.7, occlusion_range=occlusion_range)
    pipeline, expected, found = run(field), Gradients(field), Gradients(field)
    for grad in (pipeline.rays.grad_pixel, pipeline.rays.grad_opacity, pipeline.rays.grad_depth):
        buffers.write(grad, np.zeros(grad.shape[0], np.float32))
    pipeline.backward(expected, penalties)
    whole = pipeline.n_samples
    penalise(pipeline, N_RAYS, penalties, found, (3, 7))
    assert pipeline.n_samples < whole
    for kind in ("planes", "lines"):
        for one, other in zip(*(of_density(g, kind) for g in (expected, found)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-7)
    assert max(np.abs(plane).max() for plane in of_density(found, "planes")) > 1e-4
    host = [on_host(g).rank_scales for g in (expected, found)]
    np.testing.assert_allclose(host[1], host[0], rtol=1e-4, atol=1e-7)


def test_errors_and_penalties_apart_have_the_gradients_that_they_have_together(cpu):
    from tslim.field.parameters import Gradients
    from tslim.rendering import penalties as rendering_penalties
    from tslim.rendering.penalties import Penalties

    field, _ = make_field()
    penalties, rng = Penalties(distortion=0.2, occlusion=0.7, occlusion_range=0.4), np.random.default_rng(4)
    pipeline, together, apart = run(field), Gradients(field), Gradients(field)
    for grad in (pipeline.rays.grad_pixel, pipeline.rays.grad_opacity, pipeline.rays.grad_depth):
        buffers.write(grad, rng.normal(size=grad.shape[0]).astype(np.float32))
    pipeline.backward(together, penalties, 0.3)
    pipeline = _same_errors(field, pipeline)
    pipeline.backward(apart, None, 0.3)
    rendering_penalties.backward(pipeline, apart, penalties, 0.3)
    for kind in ("planes", "lines"):
        for one, other in zip(*(of_density(g, kind) for g in (together, apart)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5 * np.abs(one).max())


def test_gradients_of_rays_are_those_of_the_loss_whatever_fades_near_cameras(cpu):
    from tslim.field.parameters import Gradients

    field, _ = make_field()
    first, rng = run(field), np.random.default_rng(4)
    for grad in (first.rays.grad_pixel, first.rays.grad_opacity, first.rays.grad_depth):
        buffers.write(grad, rng.normal(size=grad.shape[0]).astype(np.float32))
    of_rays, of_field = [], []
    for fade in (0.0, 3.0):
        pipeline, gradients = _same_errors(field, first), Gradients(field)
        found = [buffers.array(3 * N_RAYS) for _ in range(2)]
        pipeline.backward(gradients, None, fade, of_rays=True)
        pipeline.ray_gradients(*found)
        of_rays.append(np.stack([buffers.read(values) for values in found]))
        of_field.append(of_density(gradients, "planes")[0])
    np.testing.assert_allclose(of_rays[1], of_rays[0], rtol=1e-3, atol=1e-4 * np.abs(of_rays[0]).max())
    assert np.abs(of_field[1]).max() < 0.9 * np.abs(of_field[0]).max()


def _same_errors(field, pipeline):
    """Another pipeline after the same forward pass, with the same gradients of its pixels to begin with."""
    other = run(field)
    for name in ("grad_pixel", "grad_opacity", "grad_depth"):
        buffers.write(getattr(other.rays, name), buffers.read(getattr(pipeline.rays, name)))
    return other


def of_density(gradients, kind: str) -> list[np.ndarray]:
    """Planes or lines of the density's gradients."""
    return gradients.density.get(gradients.density.components)[kind == "lines"]


def test_training_with_unseen_cameras_leaves_less_in_front_of_them(cpu):
    from tslim import builtin_scene
    from tslim.training.trainer import Trainer

    scene = builtin_scene(size=32, train=6, test=0)
    near = {}
    for weight in (0.0, 0.3):
        settings = TrainConfig(
            field=FieldConfig(max_rank=4, density_shift=-3.0, decoder_width=32), schedule=ScheduleConfig("fixed"),
            steps=30, batch_rays=256, grid_start=16, grid_end=16, grow_steps=(), occupancy_steps=(),
            occlusion_range=0.9, unseen_occlusion=weight, unseen_rays=64,
        )  # fmt: skip
        trainer = Trainer(Trainer.new_field(scene, settings), scene, settings)
        list(trainer.run())
        foreseen = trainer.memory.get("rays of unseen cameras", 0)
        assert foreseen >= trainer.unseen.pipeline.nbytes if weight else foreseen == 0
        points = np.random.default_rng(0).uniform(scene.box[0], scene.box[1], (500, 3)).astype(np.float32)
        near[weight] = float(np.mean(trainer.field.query(points, np.array([0.0, 0.0, -1.0]))[1]))
    assert near[0.3] < 0.97 * near[0.0]
