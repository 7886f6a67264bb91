"""Values and adjoints of the tensor field's kernels against the torch twin and central differences.

Rays have ranks of their own, odd ones among them; samples lie on borders between cells, on the faces of the box, and
outside it.
"""

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import DeviceField, assert_gradient

RANKS = (5, 1, 13, 8, 3)


@pytest.fixture(scope="module")
def arenas(cpu):
    return device_field.Arenas()


@pytest.fixture
def samples():
    return device_field.random_samples(np.random.default_rng(1), ranks=RANKS)


def make(arenas, **options) -> DeviceField:
    return DeviceField(device_field.random_state(np.random.default_rng(2), **options), arenas)


def point_ranks(samples) -> torch.Tensor:
    return torch.tensor(samples.ranks[samples.ray]).long()


def clamp_to_box(points: torch.Tensor) -> torch.Tensor:
    """The field outside its box is that of the nearest face."""
    low, high = torch.tensor(device_field.BOX).double()
    return torch.minimum(torch.maximum(points, low), high)


@pytest.mark.parametrize("activation", ["softplus", "relu"])
@pytest.mark.parametrize("rank_scales", [True, False])
def test_density_is_that_of_the_twin_at_each_points_own_rank(arenas, samples, activation, rank_scales):
    from kernels import density

    field = make(arenas, rank_scales=rank_scales)
    points = samples.points
    ranks = samples.ranks[samples.ray]
    sigma = np.full(len(points), np.nan, np.float32)
    flat = np.ascontiguousarray(points.numpy(), dtype=np.float32).ravel()
    density.density_at(
        len(points), flat, ranks, arenas.density, field.rank_scales, field.lattice("density"),
        device_field.activation(-0.5, activation == "softplus"), sigma,
    )  # fmt: skip
    twin = field.reference(requires_grad=False)
    twin.activation = activation
    low, high = torch.tensor(device_field.BOX).double()
    outside = ((points < low) | (points > high)).any(1)
    on_face = ((points - low).abs().amin(1) < 1e-5) | ((points - high).abs().amin(1) < 1e-5)
    right = torch.where(outside, 0.0, reference.density(twin, points, point_ranks(samples))).numpy()
    clear = ~on_face.numpy()
    assert np.abs(sigma - right)[clear].max() < 2e-5 * right.max()
    assert (right > 0.1).mean() > 0.1 and outside.any() and on_face.any()


def each_alone(field: DeviceField, samples) -> tuple[np.ndarray, ...]:
    """Every sample as a group of its own: ray and first sample of each group, places, parts of their groups."""
    n = len(samples.t)
    return samples.ray, np.arange(n + 1, dtype=np.int32), field.on_grid(samples), np.ones(n, np.float32)


def products_of(field: DeviceField, samples, n_chunks: int) -> np.ndarray:
    from kernels import appearance
    from tslim.device import buffers

    n = len(samples.t)
    products = device_field.arena(n * 3 * n_chunks)
    products.fill(np.nan)
    appearance.appearance_products(
        appearance.Groups(n=n, visible=n, chunks=n_chunks, shared=0), 100, *each_alone(field, samples), samples.ranks,
        field.arenas.appearance, field.layout("appearance"), products,
    )  # fmt: skip
    return buffers.read(products).reshape(n, n_chunks, 3, 16)


def by_component(products: np.ndarray, n_components: int) -> np.ndarray:
    """(n, chunk, mode, lane) → (mode, component, n)."""
    n, n_chunks, _, _ = products.shape
    return products.transpose(2, 1, 3, 0).reshape(3, 16 * n_chunks, n)[:, :n_components]


def test_appearance_products_are_those_of_the_twin_and_zero_above_each_rays_rank(arenas, samples):
    field = make(arenas)
    products = products_of(field, samples, 3)
    assert not by_component(products, 48)[:, 39:].any()
    twin = field.reference(requires_grad=False)
    x = reference.texel_coordinates(twin.box, twin.grid, clamp_to_box(samples.points))
    mask = reference.rank_mask(39, point_ranks(samples), 3, torch.float64)
    right = reference.mode_products(twin.appearance_planes, twin.appearance_lines, x) * mask
    ours = by_component(products, 39)
    assert np.abs(ours - right.numpy()).max() < 2e-5 * right.abs().max()
    assert not ours[mask.numpy()[None].repeat(3, 0) == 0].any()


@pytest.mark.parametrize(
    "shares", [(1, 3, 1, 1), (2, 0, 1, 1), (2, 0, 2, 1), (4, 0, 5, 2), (1, 0, 1, 2), (2, 2, 1, 2), (1, 1, 3, 2)]
)
def test_the_density_adjoint_agrees_with_the_twin(arenas, samples, shares):
    field = make(arenas, rank_scales=False)
    upstream = np.random.default_rng(3).normal(size=len(samples.t)).astype(np.float32)
    used = np.diff(samples.start).astype(np.int32)
    used[7] -= 2  # samples behind an early stop get no gradient
    run_density_backward(field, samples, used, upstream, shares)
    looked_at = torch.tensor(np.arange(len(samples.t)) - samples.start[samples.ray] < used[samples.ray])
    twin = field.reference()
    feature = reference.density_features(twin, clamp_to_box(samples.points), point_ranks(samples))
    (feature * torch.tensor(upstream).double() * looked_at).sum().backward()
    ours = field.gradients()
    for name, tensor in twin.named_parameters().items():
        if name.startswith("density"):
            assert_gradient(name, ours[name], tensor.grad)
        elif name.startswith("appearance"):
            assert not ours[name].any()


def run_density_backward(field, samples, n_used, upstream, shares=(2, 0, 2, 1), n_chunks=1):
    """``n_used``: used samples of each ray; ``shares``: the numbers of ``kernels.tasks.Cut``."""
    from kernels import density
    from kernels.tasks import Cut

    first = samples.start[:-1]
    used = np.stack([first, first + n_used], 1).astype(np.int32).ravel()
    arrays = (
        samples.ranks, used, field.on_grid(samples), upstream, field.arenas.density,
        field.arenas.grad_density, field.layout("density"),
    )  # fmt: skip
    if device_field.by_atomics():
        density.density_backward_atomic(len(first), 1, n_chunks, *arrays)
    else:
        density.density_backward(len(first), 1, n_chunks, Cut(*shares), *arrays)


@pytest.mark.parametrize(
    "shares", [(1, 9, 1, 1), (2, 0, 1, 1), (16, 0, 3, 1), (3, 0, 2, 2), (2, 8, 1, 2), (4, 8, 2, 2), (5, 5, 3, 2)]
)
def test_the_appearance_adjoint_agrees_with_the_twin(arenas, samples, shares):
    from kernels import appearance
    from kernels.tasks import Cut
    from tslim.device import buffers

    field = make(arenas)
    n, n_chunks = len(samples.t), 3
    upstream = np.random.default_rng(4).normal(size=(n, n_chunks, 3, 16)).astype(np.float32)
    grad_products = device_field.arena(n * 3 * n_chunks)
    buffers.write(grad_products, upstream.reshape(-1, 16))
    slopes = np.zeros(1, np.float32)
    groups = appearance.Groups(n=n, visible=n, chunks=n_chunks, shared=0)
    arrays = (
        *each_alone(field, samples), samples.ranks, grad_products, arenas.appearance, arenas.grad_appearance,
        field.layout("appearance"), slopes,
    )  # fmt: skip
    if device_field.by_atomics():
        appearance.appearance_backward_atomic(groups, *arrays)
    else:
        appearance.appearance_backward(groups, Cut(*shares), *arrays)
    twin = field.reference()
    x = reference.texel_coordinates(twin.box, twin.grid, clamp_to_box(samples.points))
    mask = reference.rank_mask(39, point_ranks(samples), 3, torch.float64)
    right = reference.mode_products(twin.appearance_planes, twin.appearance_lines, x) * mask
    (right * torch.tensor(by_component(upstream, 39)).double()).sum().backward()
    ours = field.gradients()
    for name, tensor in twin.named_parameters().items():
        if name.startswith("appearance"):
            assert_gradient(name, ours[name], tensor.grad)


def test_components_above_every_rays_rank_get_no_gradient_at_all(arenas):
    samples = device_field.random_samples(np.random.default_rng(1), ranks=(5, 2))
    field = make(arenas, rank_scales=False)
    run_density_backward(field, samples, np.diff(samples.start), np.ones(len(samples.t), np.float32))
    planes, lines = field.read("grad_", "density")
    for values in (*planes, *lines):
        assert not values[5:].any()
        assert all(component.any() for component in values[:5])


def test_the_density_adjoint_agrees_with_central_differences(arenas, samples):
    # The feature is linear in each plane and in each line, so that the difference quotient has no error but rounding.
    from kernels import density

    rng = np.random.default_rng(5)
    field = make(arenas, rank_scales=False)
    upstream = rng.normal(size=len(samples.t)).astype(np.float32)
    run_density_backward(field, samples, np.diff(samples.start), upstream)
    gradient = field.gradients()
    low, high = device_field.BOX
    points = np.clip(samples.points.numpy(), low + 1e-6, high - 1e-6).astype(np.float32).ravel()

    def loss() -> float:
        feature = np.zeros(len(samples.t), np.float32)
        field.upload()
        # relu of a feature lifted far above zero is the feature itself.
        density.density_at(
            len(samples.t), points, samples.ranks[samples.ray], arenas.density, field.rank_scales,
            field.lattice("density"), device_field.activation(100.0, softplus=False), feature,
        )  # fmt: skip
        return float((upstream.astype(np.float64) * (feature.astype(np.float64) - 100)).sum())

    for kind in ("density_planes", "density_lines"):
        for mode in range(3):
            values = getattr(field.state, kind)[mode]
            direction = rng.normal(size=values.shape).astype(np.float32)
            before = values.copy()
            ends = []
            for sign in (1, -1):
                values[...] = before + sign * 0.5 * direction
                ends.append(loss())
            values[...] = before
            expected = float((gradient[f"{kind}[{mode}]"].astype(np.float64) * direction).sum())
            assert ends[0] - ends[1] == pytest.approx(expected, rel=2e-3), f"{kind}[{mode}]"


def test_the_scaling_of_features_and_its_adjoint_agree_with_the_twin(arenas, samples):
    from kernels import appearance

    field = make(arenas)
    rng = np.random.default_rng(6)
    n = len(samples.t)
    raw, upstream = (rng.normal(size=27 * n).astype(np.float32) for _ in range(2))
    features, grad = np.zeros_like(raw), upstream.copy()
    grad_rank_scales = np.zeros(13 * 56, np.float32)
    appearance.scale_features(n, samples.ray, samples.ranks, field.rank_scales, raw, features)
    appearance.scale_features_backward(n, samples.ray, samples.ranks, field.rank_scales, raw, grad, grad_rank_scales)
    x = torch.tensor(raw.reshape(n, 27)).double().requires_grad_()
    rows = torch.tensor(field.state.rank_scales).double().requires_grad_()
    row = rows[point_ranks(samples) - 1]
    right = row[:, 2:29] * x + row[:, 29:]
    right.backward(torch.tensor(upstream.reshape(n, 27)).double())
    assert np.abs(features - right.detach().numpy().ravel()).max() < 1e-5
    assert_gradient("features before the scales", grad, x.grad)
    assert_gradient("rank_scales", grad_rank_scales.reshape(13, 56)[:, 2:], rows.grad[:, 2:])
