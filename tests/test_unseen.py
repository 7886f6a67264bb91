"""Cameras that nobody held: where they stand, and what density in front of them costs."""

import numpy as np
import pytest

from tests.device_field import on_host
from tests.test_gradients_pipeline import N_RAYS, make_field, make_rays, run
from tslim.config import FieldConfig, ScheduleConfig, TrainConfig
from tslim.device import buffers


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_rays_are_turned_about_the_centre_and_shifted_within_the_spread(cpu, spread):
    from kernels import unseen

    origins, directions, _ = make_rays()
    centre, unit = np.array([0.2, -0.1, 0.3]), 2.0
    rays = [buffers.upload(a.astype(np.float32).reshape(-1)) for a in (origins, directions)]
    found = [[buffers.array(3 * N_RAYS) for _ in range(2)] for _ in range(2)]
    for moved in found:
        unseen.wander(N_RAYS, 7, 3, centre.tolist(), unit, spread, *rays, *moved)
    o, d = (buffers.read(a).reshape(-1, 3) for a in found[0])
    assert np.array_equal(o, buffers.read(found[1][0]).reshape(-1, 3))  # the same in every run
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), np.linalg.norm(directions, axis=1), rtol=1e-5)
    turned = np.degrees(np.arccos(np.clip((d * directions).sum(1), -1, 1)))
    arms = np.linalg.norm(origins - centre, axis=1)
    assert (turned <= np.degrees(np.sqrt(3) * spread) + 0.1).all() and (turned.mean() > 3) == (spread > 0)
    assert (np.abs(np.linalg.norm(o - centre, axis=1) - arms) <= np.sqrt(3) * spread * unit + 1e-5).all()


@pytest.mark.parametrize("occlusion_range", [0.2, 0.6])
def test_a_penalty_alone_has_the_gradients_that_it_has_beside_an_error_of_zero(cpu, occlusion_range):
    from tslim.field.parameters import Gradients
    from tslim.rendering.pipeline import Penalties

    field, _ = make_field()
    penalties = Penalties(occlusion=0.7, occlusion_range=occlusion_range)
    pipeline, expected, found = run(field), Gradients(field), Gradients(field)
    for grad in (pipeline.rays.grad_pixel, pipeline.rays.grad_opacity, pipeline.rays.grad_depth):
        buffers.write(grad, np.zeros(grad.shape[0], np.float32))
    pipeline.backward(expected, penalties)
    whole = pipeline.n_samples
    pipeline.penalise(N_RAYS, penalties, found, (3, 7))
    assert pipeline.n_samples < whole
    for kind in ("planes", "lines"):
        for one, other in zip(*(of_density(g, kind) for g in (expected, found)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-7)
    assert max(np.abs(plane).max() for plane in of_density(found, "planes")) > 1e-4
    host = [on_host(g).rank_scales for g in (expected, found)]
    np.testing.assert_allclose(host[1], host[0], rtol=1e-4, atol=1e-7)


def test_errors_and_penalties_apart_have_the_gradients_that_they_have_together(cpu):
    from tslim.rendering.pipeline import Gradients, Penalties

    field, _ = make_field()
    penalties, rng = Penalties(distortion=0.2, occlusion=0.7, occlusion_range=0.4), np.random.default_rng(4)
    pipeline, together, apart = run(field), Gradients(field), Gradients(field)
    for grad in (pipeline.rays.grad_pixel, pipeline.rays.grad_opacity, pipeline.rays.grad_depth):
        buffers.write(grad, rng.normal(size=grad.shape[0]).astype(np.float32))
    pipeline.backward(together, penalties, 0.3)
    pipeline = _same_errors(field, pipeline)
    pipeline.backward(apart, None, 0.3)
    pipeline.penalties_backward(apart, penalties, 0.3)
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
        points = np.random.default_rng(0).uniform(scene.box[0], scene.box[1], (500, 3)).astype(np.float32)
        near[weight] = float(np.mean(trainer.field.query(points, np.array([0.0, 0.0, -1.0]))[1]))
    assert near[0.3] < 0.97 * near[0.0]
