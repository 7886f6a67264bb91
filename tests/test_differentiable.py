"""The renderer inside ``ti.ad.Tape``: gradients of a loss kernel of ours flow through it to every parameter."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import assert_gradient, on_host
from tests.test_gradients_pipeline import BACKGROUND, N_RAYS, make_field, make_rays
from tslim.device import buffers
from tslim.errors import ConfigError

GAIN = np.array([0.8, 1.1, 1.3], np.float32)


class Comparison:
    """A loss with a parameter of its own: sum of (gain · rgb − target)² + opacity² + 0.1 depth."""

    def __init__(self, renderer, target: np.ndarray) -> None:
        import taichi as ti

        self.renderer = renderer
        self.gain = ti.Vector.field(3, ti.f32, (), needs_grad=True)
        self.loss = ti.field(ti.f32, (), needs_grad=True)
        self.target = ti.Vector.field(3, ti.f32, N_RAYS)
        self.target.from_numpy(target)
        self.gain.from_numpy(GAIN)
        rgb, opacity, depth, gain, aim, loss = (
            renderer.rgb, renderer.opacity, renderer.depth, self.gain, self.target, self.loss,
        )  # fmt: skip

        @ti.kernel
        def compare():
            for i in range(N_RAYS):
                e = gain[None] * rgb[i] - aim[i]
                loss[None] += e.dot(e) + opacity[i] ** 2 + 0.1 * depth[i]

        self.compare = compare

    def differentiate(self) -> float:
        """The loss, leaving gradients where they belong."""
        import taichi as ti

        with ti.ad.Tape(self.loss):
            self.renderer.render()
            self.compare()
        return self.loss[None]


def make(**options):
    from tslim.rendering.differentiable import DifferentiableRenderer
    from tslim.rendering.pipeline import MarchConfig

    field, state = make_field(**options)
    origins, directions, ranks = make_rays()
    renderer = DifferentiableRenderer(
        field, origins, 3 * directions, rank=ranks, background=BACKGROUND, config=MarchConfig(early_stop=0.0)
    )
    target = np.random.default_rng(61).random((N_RAYS, 3)).astype(np.float32)
    return Comparison(renderer, target), field, state, target


@pytest.mark.parametrize("decoder", ["mlp", "sh"])
def test_a_tape_carries_gradients_through_the_renderer_to_every_parameter(cpu, decoder):
    comparison, _, state, target = make(decoder=decoder)
    renderer = comparison.renderer
    value = comparison.differentiate()
    ours, p = renderer.gradients(), on_host(renderer._pipeline)

    twin = reference.ReferenceField.from_state(state, requires_grad=True)
    start = np.array(p.ray_start)
    ray = torch.tensor(np.repeat(np.arange(N_RAYS), np.diff(start)))
    origins, directions = (
        torch.tensor(np.array(a).reshape(-1, 3)).double() for a in (p.rays.origins, p.rays.directions)
    )
    seen = reference.render_samples(
        twin, origins, directions, ray, torch.tensor(p.sample_t[: p.n_samples]).double(),
        torch.full((p.n_samples,), p.step_size, dtype=torch.float64), torch.tensor(p.rays.ranks).long(),
        torch.tensor(BACKGROUND).double(),
    )  # fmt: skip
    gain = torch.tensor(GAIN).double().requires_grad_()
    squares = ((gain * seen.rgb - torch.tensor(target).double()) ** 2).sum()
    loss = squares + (seen.opacity**2).sum() + 0.1 * seen.depth.sum()
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    assert_gradient("gain", comparison.gain.grad.to_numpy(), gain.grad)
    for name, tensor in twin.named_parameters().items():
        assert_gradient(name, ours[name], tensor.grad, tolerance=5e-4)


@pytest.mark.parametrize("decoder", ["mlp", "sh"])
def test_a_shift_and_a_turn_of_the_camera_are_differentiated_as_central_differences_say(cpu, decoder):
    # Within near and far all rays run inside the box, so that their samples keep their distances when the camera moves.
    from tslim.rendering.differentiable import DifferentiableRenderer
    from tslim.rendering.pipeline import MarchConfig

    field, _ = make_field(occupancy=False, decoder=decoder)
    centre, size = field.box.mean(axis=0), (field.box[1] - field.box[0]).min()
    field.domain = replace(field.domain, near=0.05 * size, far=0.25 * size)
    rng = np.random.default_rng(5)
    origins = centre + 0.1 * size * rng.uniform(-1, 1, (N_RAYS, 3))
    directions = rng.normal(size=(N_RAYS, 3))
    config = MarchConfig(step_ratio=0.05, weight_threshold=0.0, early_stop=0.0)

    renderer = DifferentiableRenderer(field, origins, directions, background=BACKGROUND, config=config)
    comparison = Comparison(renderer, np.full((N_RAYS, 3), 0.4, np.float32))

    def loss_at(origins, directions) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        buffers.write(renderer._pipeline.rays.origins, origins.astype(np.float32).ravel())
        buffers.write(renderer._pipeline.rays.directions, unit.astype(np.float32).ravel())
        return comparison.differentiate(), renderer.ray_gradients()

    value, (by_o, by_d) = loss_at(origins, directions)
    assert by_o.shape == by_d.shape == (N_RAYS, 3) and value > 0
    assert (by_d * directions).sum(1) == pytest.approx(0, abs=1e-3 * float(np.abs(by_d).max())), "lengths do not matter"
    step, angle = 2e-3 * size, 4e-3
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        slope = (loss_at(origins + shift, directions)[0] - loss_at(origins - shift, directions)[0]) / (2 * step)
        assert by_o.sum(axis=0)[axis] == pytest.approx(slope, rel=0.02, abs=2e-3 * abs(value))
        turn = angle * np.cross(np.eye(3)[axis], directions)
        slope = (loss_at(origins, directions + turn)[0] - loss_at(origins, directions - turn)[0]) / (2 * angle)
        ours = (by_d * turn).sum() / angle
        assert ours == pytest.approx(slope, rel=0.02, abs=2e-3 * abs(value))


def test_a_second_tape_starts_from_zero_gradients(cpu):
    comparison, _, _, _ = make()
    comparison.differentiate()
    first = comparison.renderer.gradients()
    comparison.differentiate()
    for name, values in comparison.renderer.gradients().items():
        assert values.tobytes() == first[name].tobytes(), name


def test_the_gradient_of_a_decoder_weight_agrees_with_central_differences_through_the_tape(cpu):
    comparison, field, _, _ = make()
    comparison.differentiate()
    gradient = comparison.renderer.gradients()["decoder.b3"]
    offset, _ = field.decoder.layout["b3"]
    for channel in range(3):
        ends = []
        for sign in (1, -1):
            field.decoder.params[offset + channel] += sign * 0.02
            ends.append(comparison.differentiate())
            field.decoder.params[offset + channel] -= sign * 0.02
        assert (ends[0] - ends[1]) / 0.04 == pytest.approx(gradient[channel], rel=5e-3)


def test_rays_and_ranks_that_make_no_sense_are_refused(cpu):
    from tslim.field.field import Field
    from tslim.rendering.differentiable import DifferentiableRenderer

    field = Field.from_state(device_field.random_state(np.random.default_rng(1)))
    one = np.ones((1, 3))
    with pytest.raises(ConfigError, match="expected"):
        DifferentiableRenderer(field, one, np.ones((2, 3)))
    for rank in (0, 14):
        with pytest.raises(ConfigError, match="1 to 13"):
            DifferentiableRenderer(field, one, one, rank=rank)
