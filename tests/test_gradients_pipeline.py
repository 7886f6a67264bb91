"""The whole differentiable renderer, from rays to pixels and back to every parameter, against the torch twin."""

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import assert_gradient, on_host
from tslim.config import FieldConfig
from tslim.device import buffers
from tslim.field.basis import device_rows

BACKGROUND = (0.3, 0.8, 0.5)
RANKS = (5, 1, 13, 8, 3)
N_RAYS = 48


def make_field(*, decoder: str = "mlp", activation: str = "softplus", rank_scales: bool = True, occupancy: bool = True):
    from tslim.field.field import Field

    rng = np.random.default_rng(21)
    config = FieldConfig(decoder=decoder, density_activation=activation, density_shift=-0.5, distance_scale=3.0)
    state = device_field.random_state(rng, rank_scales=rank_scales, config=config)
    if occupancy:
        state.occupancy, state.occupancy_box = rng.random((8, 5, 6)) < 0.7, state.box.copy()
    return Field.from_state(state), state


def make_rays(seed: int = 22) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(origins, directions, ranks); some rays miss the box, one starts inside."""
    samples = device_field.random_samples(np.random.default_rng(seed), N_RAYS, ranks=RANKS)
    directions = samples.directions.copy()
    directions[:3] *= -1
    origins = samples.origins.copy()
    origins[5] = 0.1
    return origins, directions, samples.ranks


def copied_rays(copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One in so many of ``make_rays``, each so many times at another rank."""
    origins, directions, ranks = make_rays()
    return np.tile(origins[::copies], (copies, 1)), np.tile(directions[::copies], (copies, 1)), ranks


def run(
    field, *, jitter=(3, 7), stop: float = 1e-4, threshold: float = 1e-4, span: float = 0.0, rays=None, copies: int = 1
):
    """A pipeline after its forward pass."""
    from tslim.rendering.batch import Rays
    from tslim.rendering.pipeline import MarchConfig, Pipeline

    origins, directions, ranks = rays or make_rays()
    config = MarchConfig(early_stop=stop, weight_threshold=threshold, colour_span=span)
    pipeline = Pipeline(field, Rays(N_RAYS), config)
    buffers.write(pipeline.rays.origins, origins.ravel())
    buffers.write(pipeline.rays.directions, directions.ravel())
    buffers.write(pipeline.rays.ranks, ranks)
    pipeline.forward(N_RAYS, max_rank=int(ranks.max()), background=BACKGROUND, jitter=jitter, copies=copies)
    return pipeline


def twin_pixels(pipeline, state, stop: float, threshold: float, span: float = 0.0):
    """The twin, and its pixels from the same samples."""
    twin = reference.ReferenceField.from_state(state, requires_grad=True)
    n = pipeline.n_samples
    host = on_host(pipeline)
    start = host.ray_start[: N_RAYS + 1]
    ray = torch.tensor(np.repeat(np.arange(N_RAYS), np.diff(start)))
    origins, directions = (torch.tensor(a.reshape(-1, 3)).double() for a in (host.rays.origins, host.rays.directions))
    seen = reference.render_samples(
        twin, origins, directions, ray, torch.tensor(host.sample_t[:n]).double(),
        torch.full((n,), pipeline.step_size, dtype=torch.float64), torch.tensor(host.rays.ranks).long(),
        torch.tensor(BACKGROUND).double(), stop, threshold, span * pipeline.field.voxel,
    )  # fmt: skip
    return twin, seen


def device_gradients(field, gradients) -> dict[str, np.ndarray]:
    """All gradients on the host, named and shaped as ``ReferenceField.named_parameters``."""
    named = {}
    for kind in ("density", "appearance"):
        factors = getattr(gradients, kind)
        planes, lines = factors.get(factors.components)
        named |= {f"{kind}_planes[{m}]": values for m, values in enumerate(planes)}
        named |= {f"{kind}_lines[{m}]": values for m, values in enumerate(lines)}
    gradients = on_host(gradients)
    named["basis"] = gradients.basis.reshape(-1, 27)[device_rows(3 * field.max_rank)]
    named["rank_scales"] = gradients.rank_scales.reshape(-1, 56)
    for name, (offset, shape) in field.decoder.layout.items():
        named[f"decoder.{name}"] = gradients.decoder[offset : offset + int(np.prod(shape))].reshape(shape)
    return named


@pytest.mark.parametrize(
    "options",
    [
        {"decoder": "mlp"},
        {"decoder": "sh"},
        {"decoder": "mlp", "rank_scales": False, "activation": "relu", "occupancy": False},
    ],
    ids=["mlp", "sh", "relu without scales"],
)
@pytest.mark.parametrize(
    ("stop", "threshold", "span"), [(0.0, 1e-4, 0.0), (0.05, 0.01, 0.0), (0.0, 1e-4, 1.7), (0.0, 0.01, 1e9)]
)
@pytest.mark.parametrize("copies", [1, 3])
def test_pixels_and_the_gradient_of_every_parameter_agree_with_the_twin(cpu, options, stop, threshold, span, copies):
    from tslim.field.parameters import Gradients

    field, state = make_field(**options)
    pipeline = run(field, stop=stop, threshold=threshold, span=span, rays=copied_rays(copies), copies=copies)
    twin, seen = twin_pixels(pipeline, state, stop, threshold, span)
    assert 0 < pipeline.n_groups <= pipeline.n_visible
    assert (pipeline.n_groups < pipeline.n_visible) == (span > 0)
    assert pipeline.n_visible < pipeline.n_samples or stop == 0
    host = on_host(pipeline.rays)
    pairs = (
        (host.pixel.reshape(-1, 3), seen.rgb),
        (host.opacity, seen.opacity),
        (host.depth, seen.depth),
    )
    for ours, right in pairs:
        assert np.abs(ours - right.detach().numpy()).max() < 3e-5
    assert (host.opacity > 0.2).sum() > 10 and (host.opacity == 0).sum() >= 3

    rng = np.random.default_rng(23)
    for name in ("grad_pixel", "grad_opacity", "grad_depth"):
        into = getattr(pipeline.rays, name)
        buffers.write(into, np.float32(rng.normal(size=into.shape)))
    gradients = Gradients(field)
    pipeline.backward(gradients)
    loss = (seen.rgb * torch.tensor(host.grad_pixel.reshape(-1, 3)).double()).sum()
    loss = loss + (seen.opacity * torch.tensor(host.grad_opacity).double()).sum()
    (loss + (seen.depth * torch.tensor(host.grad_depth).double()).sum()).backward()
    ours = device_gradients(field, gradients)
    for name, tensor in twin.named_parameters().items():
        assert_gradient(name, ours[name], tensor.grad, tolerance=5e-4)
    gradients.release()


@pytest.mark.parametrize("space", ["box", "contracted"])
def test_copies_of_rays_are_what_they_would_be_alone(cpu, space):
    from tests.test_spaces import make_field as make_in
    from tslim.field.parameters import Gradients

    field, _ = make_in(space, max_rank=40)
    ranks = np.repeat(np.array([40, 2, 17], np.int32), N_RAYS // 3)
    found = []
    for copies in (1, 3):
        origins, directions, _ = copied_rays(3)
        pipeline = run(field, rays=(origins, directions, ranks), copies=copies, jitter=None, span=1.7, stop=0.05)
        buffers.write(pipeline.rays.grad_pixel, np.float32(np.random.default_rng(2).normal(size=3 * N_RAYS)))
        gradients = Gradients(field)
        pipeline.backward(gradients)
        host = on_host(pipeline.rays)
        found.append(device_gradients(field, gradients) | {"pixel": host.pixel.copy(), "depth": host.depth.copy()})
        assert pipeline.n_visible > 50
        gradients.release()
    for name, alone in found[0].items():
        np.testing.assert_allclose(found[1][name], alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max(), err_msg=name)


def test_ranks_above_every_rays_rank_get_exactly_zero_gradient(cpu):
    from tslim.field.parameters import Gradients

    field, _ = make_field()
    origins, directions, _ = make_rays()
    pipeline = run(field, rays=(origins, directions, np.resize(np.array([5, 2], np.int32), N_RAYS)))
    buffers.write(pipeline.rays.grad_pixel, np.float32(1))
    gradients = Gradients(field)
    pipeline.backward(gradients)
    for name, values in device_gradients(field, gradients).items():
        if name == "basis":
            assert values[:, :15].any() and not values[:, 15:].any()
        elif name == "rank_scales":
            assert values[[1, 4]].any(1).all() and not np.delete(values, [1, 4], 0).any()
        elif not name.startswith("decoder"):
            active = 5 if name.startswith("density") else 15
            assert values[:active].any() and not values[active:].any(), name
    gradients.release()


def test_the_gradient_of_a_batch_is_the_same_bits_every_time(cpu):
    from tslim.field.parameters import Gradients

    if not cpu.is_cpu:
        pytest.skip("atomics add in any order")
    results = []
    for _ in range(2):
        field, _ = make_field()
        pipeline = run(field)
        buffers.write(pipeline.rays.grad_pixel, np.float32(np.random.default_rng(1).normal(size=3 * N_RAYS)))
        gradients = Gradients(field)
        pipeline.backward(gradients)
        results.append({k: v.tobytes() for k, v in device_gradients(field, gradients).items()})
        gradients.release()
    assert results[0] == results[1]


def test_gradients_add_up_over_batches(cpu):
    from tslim.field.parameters import Gradients

    field, _ = make_field()
    pipeline = run(field)
    buffers.write(pipeline.rays.grad_pixel, np.float32(1))
    gradients = Gradients(field)
    pipeline.backward(gradients)
    once = {k: v.copy() for k, v in device_gradients(field, gradients).items()}
    pipeline.forward(N_RAYS, max_rank=13, background=BACKGROUND, jitter=(3, 7))
    pipeline.backward(gradients)
    for name, twice in device_gradients(field, gradients).items():
        assert_gradient(name, twice, 2 * once[name], tolerance=1e-5)
    gradients.clear()
    assert not any(values.any() for values in device_gradients(field, gradients).values())
    gradients.release()


def test_a_field_seen_by_no_ray_gives_background_and_zero_gradients(cpu):
    from tslim.field.parameters import Gradients

    field, _ = make_field()
    origins, directions, ranks = make_rays()
    pipeline = run(field, rays=(origins * 0 + np.float32(5), np.abs(directions), ranks))
    assert pipeline.n_samples == 0
    assert on_host(pipeline).rays.pixel.reshape(-1, 3) == pytest.approx(np.tile(BACKGROUND, (N_RAYS, 1)), abs=1e-7)
    buffers.write(pipeline.rays.grad_pixel, np.float32(1))
    gradients = Gradients(field)
    pipeline.backward(gradients)
    assert not any(values.any() for values in device_gradients(field, gradients).values())
    gradients.release()


@pytest.mark.parametrize("rank", [1, 5, 13])
def test_a_slimmed_field_renders_bit_for_bit_as_the_full_one_does_at_that_rank(cpu, rank):
    from tslim.field.field import Field

    field, _ = make_field()
    origins, directions, _ = make_rays()
    rays = (origins, directions, np.full(N_RAYS, rank, np.int32))
    full = run(field, rays=rays)
    written = Field.from_state(field.slim(rank).state())
    slim = run(written, rays=rays)
    assert on_host(full).rays.pixel.tobytes() == on_host(slim).rays.pixel.tobytes()
    assert on_host(full).rays.depth.tobytes() == on_host(slim).rays.depth.tobytes()
