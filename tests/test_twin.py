"""The torch twin that we are timed against computes what we compute: same pixels, same gradients, same step."""

import numpy as np
import pytest
import torch

from benchmarks.twin import TorchTwin
from tests import device_field
from tests.device_field import assert_gradient
from tests.test_gradients_pipeline import BACKGROUND, N_RAYS, device_gradients, make_rays, run
from tslim.config import FieldConfig


def make(rank: int):
    """Our field, its state, a pipeline after its forward pass, and the twin with its batch of the same rays."""
    from tslim.field.field import Field

    rng = np.random.default_rng(31)
    state = device_field.random_state(
        rng, rank_scales=False, config=FieldConfig(density_shift=-0.5, distance_scale=3.0)
    )
    state.occupancy, state.occupancy_box = rng.random((8, 5, 6)) < 0.7, state.box.copy()
    field = Field.from_state(state)
    origins, directions, _ = make_rays()
    # A ray from inside the box starts at near for us, and at its entry behind the camera for the public code.
    origins[5] = origins[6]
    # f32 rounds samples on the border between two cells either way.
    keep = ~np.isin(np.arange(N_RAYS), (1, 2, 3))
    origins[~keep], directions[~keep] = origins[7], directions[7]
    rays = (origins, directions, np.full(N_RAYS, rank, np.int32))
    base = run(field, stop=0.0, jitter=None, rays=rays)
    pipeline = run(field, stop=0.0, rays=rays)
    twin = TorchTwin(state, pipeline.step_size)
    twin.rank = rank
    jitter = torch.tensor((pipeline.ray_t0 - base.ray_t0) / pipeline.step_size)
    batch = (torch.tensor(origins), torch.tensor(directions), torch.tensor(BACKGROUND), jitter)
    return field, pipeline, twin, batch


@pytest.mark.parametrize("rank", [13, 5, 1])
def test_the_twin_renders_our_pixels_depths_and_opacities(cpu, rank):
    _, pipeline, twin, batch = make(rank)
    with torch.no_grad():
        rgb, depth, opacity = twin.render_rays(*batch)
    assert (pipeline.rays.opacity > 0.2).sum() > 10
    for ours, theirs in (
        (np.clip(pipeline.rays.pixel, 0, 1).reshape(-1, 3), rgb),
        (pipeline.rays.depth, depth),
        (pipeline.rays.opacity, opacity),
    ):
        assert np.abs(ours - theirs.numpy()).max() < 1e-4


def test_the_twin_has_our_gradients(cpu):
    from kernels import loss as losses
    from tslim.field.parameters import Gradients

    field, pipeline, twin, batch = make(5)
    target = np.random.default_rng(32).random((N_RAYS, 3)).astype(np.float32)
    loss = np.zeros(N_RAYS, np.float32)
    losses.squared_error(
        N_RAYS,
        pipeline.rays.pixel,
        target.ravel(),
        np.ones(N_RAYS, np.float32),
        1 / N_RAYS,
        loss,
        pipeline.rays.grad_pixel,
    )
    gradients = Gradients(field)
    pipeline.backward(gradients)
    ours = device_gradients(field, gradients)
    total, mse = twin.loss(*batch[:2], torch.tensor(target), *batch[2:])
    total.backward()
    assert float(mse.detach()) == pytest.approx(loss.mean(), rel=1e-5)
    for kind in ("density", "appearance"):
        active = 5 if kind == "density" else 15
        for mode in range(3):
            for part in ("planes", "lines"):
                theirs = (
                    getattr(twin, f"{kind}_{part}")[mode].grad[0].numpy().reshape(ours[f"{kind}_{part}[{mode}]"].shape)
                )
                assert_gradient(f"{kind} {part}", ours[f"{kind}_{part}[{mode}]"][:active], theirs[:active], 1e-3)
                assert np.abs(theirs[active:]).max() < 1e-5 * np.abs(theirs).max()
    assert_gradient("basis", ours["basis"].reshape(-1, 27), twin.basis.weight.grad.T, 1e-3)
    linear = [layer for layer in twin.mlp if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(linear, 1):
        assert_gradient(f"w{i}", ours[f"decoder.w{i}"], layer.weight.grad.T, 1e-3)
        assert_gradient(f"b{i}", ours[f"decoder.b{i}"], layer.bias.grad, 1e-3)
    gradients.release()


def test_the_twin_learns(cpu):
    _, _, twin, batch = make(13)
    target = torch.rand(N_RAYS, 3, generator=torch.Generator().manual_seed(1))
    losses = [twin.train_step(*batch[:2], target, *batch[2:]) for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_twin_refuses_a_field_that_the_public_code_has_no_words_for(cpu):
    state = device_field.random_state(np.random.default_rng(1), rank_scales=True)
    with pytest.raises(ValueError, match="scales per rank"):
        TorchTwin(state, 0.1)
