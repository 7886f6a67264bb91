"""The optimiser pass and the regularisers, against torch and against arithmetic; what is masked keeps its bits."""

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import DeviceField, assert_gradient, pack, unpack

LR, BETAS, EPSILON = 0.02, (0.9, 0.99), 1e-8


class Moments:
    """Arenas for the two moments of appearance factors."""

    def __init__(self) -> None:
        for name in ("m", "v"):
            setattr(self, name, device_field.arena(device_field.Arenas.CAPACITY))


@pytest.fixture(scope="module")
def arenas(cpu):
    return device_field.Arenas()


@pytest.fixture(scope="module")
def moments(cpu):
    return Moments()


def constants(step: int):
    """``kernels.adam.AdamStep``."""
    from kernels.adam import AdamStep

    first, second = (1 / (1 - beta**step) for beta in BETAS)
    return AdamStep(LR, *BETAS, first, second, EPSILON)


def adam_step(field, moments, step, first, end, l1_planes=(0.0,) * 3, l1_lines=(0.0,) * 3, lazy=0, pace=1.0) -> None:
    from kernels import adam

    a, component_pace = field.arenas, np.zeros(16 * field.appearance_chunks, np.float32)
    component_pace[first:end] = pace
    how = adam.ArenaStep(
        adam=constants(step), first_chunk=first // 16, end_chunk=-(-end // 16), l1_planes=l1_planes, l1_lines=l1_lines,
        lazy=lazy,
    )  # fmt: skip
    arrays = a.appearance, a.grad_appearance, moments.m, moments.v
    adam.adam_arena(*arrays, field.layout("appearance"), how, component_pace)


def set_gradients(field: DeviceField, planes: list[np.ndarray], lines: list[np.ndarray]) -> None:
    from tslim.device import buffers

    packed = pack([*planes, *lines], field.appearance_chunks, device_field.Arenas.CAPACITY)
    buffers.write(field.arenas.grad_appearance, packed)


@pytest.mark.parametrize(("first", "end"), [(0, 39), (0, 15), (6, 21), (16, 39)])
def test_active_components_follow_torchs_adam_and_the_others_keep_their_bits(arenas, moments, first, end):
    from tslim.device import buffers

    rng = np.random.default_rng(1)
    state = device_field.random_state(rng)
    field = DeviceField(state, arenas)
    for arena in vars(moments).values():
        arena.fill(0)
    tensors = [torch.tensor(a[first:end]).requires_grad_() for a in (*state.appearance_planes, *state.appearance_lines)]
    optimiser = torch.optim.Adam(tensors, lr=LR, betas=BETAS, eps=EPSILON)
    weights = [0.3, 0.1, 0.2, 0.25, 0.15, 0.05]
    for step in range(1, 4):
        gradients = [
            rng.normal(size=a.shape).astype(np.float32) for a in (*state.appearance_planes, *state.appearance_lines)
        ]
        set_gradients(field, gradients[:3], gradients[3:])
        adam_step(field, moments, step, first, end, weights[:3], weights[3:])
        for tensor, gradient, weight in zip(tensors, gradients, weights, strict=True):
            tensor.grad = torch.tensor(gradient[first:end]) + weight * tensor.detach().sign()
        optimiser.step()
    planes, lines = field.read("", "appearance")
    before = (*state.appearance_planes, *state.appearance_lines)
    for ours, start, tensor in zip((*planes, *lines), before, tensors, strict=True):
        moved = ours[first:end] - start[first:end]
        assert_gradient("step", moved, tensor.detach().numpy() - start[first:end], tolerance=1e-4)
        assert ours[:first].tobytes() == start[:first].tobytes()
        assert ours[end:].tobytes() == start[end:].tobytes()
    for arena in (moments.m, moments.v):
        for values in unpack(buffers.read(arena), field.tensors("appearance"), field.appearance_chunks):
            assert values[first:end].any() and not values[:first].any() and not values[end:].any()


def at_rest(arenas, moments):
    """A field with zero moments and equal gradients in all planes, and in all lines, and its state.

    The first step is then lr g / (|g| + eps (…)): its size is lr whatever the gradient's.
    """
    state = device_field.random_state(np.random.default_rng(2))
    field = DeviceField(state, arenas)
    for arena in vars(moments).values():
        arena.fill(0)
    set_gradients(field, [np.full_like(a, 7.0) for a in state.appearance_planes],
                  [np.full_like(a, -0.01) for a in state.appearance_lines])  # fmt: skip
    return state, field


def test_one_step_from_rest_moves_each_entry_by_the_learning_rate(arenas, moments):
    state, field = at_rest(arenas, moments)
    adam_step(field, moments, 1, 0, 39)
    planes, lines = field.read("", "appearance")
    assert planes[1] - state.appearance_planes[1] == pytest.approx(-LR, rel=1e-4)
    assert lines[2] - state.appearance_lines[2] == pytest.approx(LR, rel=1e-4)


def test_each_component_moves_by_its_own_learning_rate(arenas, moments):
    state, field = at_rest(arenas, moments)
    pace = np.linspace(1, 5, 39).astype(np.float32)
    adam_step(field, moments, 1, 0, 39, pace=pace)
    planes, lines = field.read("", "appearance")
    for k, times in enumerate(pace):
        assert planes[1][k] - state.appearance_planes[1][k] == pytest.approx(-LR * times, rel=1e-3)
        assert lines[2][k] - state.appearance_lines[2][k] == pytest.approx(LR * times, rel=1e-3)


@pytest.mark.parametrize(("rank", "ratio"), [(9, 1.0), (9, 3.0), (2, 3.0), (1, 3.0)])
def test_the_first_ranks_learn_as_much_faster_as_asked(cpu, rank, ratio):
    from tslim.field.field import Field
    from tslim.training.optim import Optimizer

    field = Field.from_state(device_field.random_state(np.random.default_rng(3), max_rank=rank))
    before = field.state()
    optimizer = Optimizer(field, ratio)
    for factors in (optimizer.gradients.density, optimizer.gradients.appearance):
        factors.values.fill(1.0)
    optimizer.step(rank, {"factors": 0.01, "network": 1e-12, "scales": 1e-12})
    after, moves = field.state(), []
    for k in range(rank):
        own = slice(3 * k, 3 * k + 3)
        moved = before.appearance_lines[1][own] - after.appearance_lines[1][own]
        moves.append(float(moved.mean()))
        assert moved == pytest.approx(moves[-1], rel=1e-3)
        density = before.density_planes[0][k] - after.density_planes[0][k]
        assert density == pytest.approx(moves[-1], rel=1e-3)
    if rank < 3:
        assert moves == pytest.approx([0.01] * rank, rel=1e-3)
    else:
        assert moves[:2] == pytest.approx([0.01 * ratio] * 2, rel=1e-3) and moves[-1] == pytest.approx(0.01, rel=1e-3)
        # A power of the rank: 2 → 4 and 4 → 8 change it by the same factor.
        assert moves[1] / moves[3] == pytest.approx(moves[3] / moves[7], rel=1e-3)


def test_a_lazy_step_leaves_texels_without_a_gradient_and_treats_the_others_as_ever(arenas, moments):
    rng = np.random.default_rng(5)
    state = device_field.random_state(rng)
    everywhere = [
        rng.normal(size=a.shape).astype(np.float32) for a in (*state.appearance_planes, *state.appearance_lines)
    ]
    seen = [rng.random(a.shape[1:]) < 0.5 for a in everywhere]
    results = []
    for lazy in (0, 1):
        field = DeviceField(state, arenas)
        for arena in vars(moments).values():
            arena.fill(0)
        for step, gradients in ((1, everywhere), (2, [g * s for g, s in zip(everywhere, seen, strict=True)])):
            set_gradients(field, gradients[:3], gradients[3:])
            adam_step(field, moments, step, 0, 39, lazy=lazy)
            planes, lines = field.read("", "appearance")
            results.append([*planes, *lines])
    dense, lazy = results[1], results[3]
    for after_one, both, ours, where in zip(results[2], dense, lazy, seen, strict=True):
        assert ours[:, where].tobytes() == both[:, where].tobytes()
        assert ours[:, ~where].tobytes() == after_one[:, ~where].tobytes()
        assert (both[:, ~where] != after_one[:, ~where]).mean() > 0.9, "momentum moves them otherwise"


def test_gradients_are_zero_after_they_were_used(arenas, moments):
    state = device_field.random_state(np.random.default_rng(3))
    field = DeviceField(state, arenas)
    ones = [np.ones_like(a) for a in state.appearance_planes], [np.ones_like(a) for a in state.appearance_lines]
    set_gradients(field, *ones)
    adam_step(field, moments, 1, 0, 39)
    planes, lines = field.read("grad_", "appearance")
    assert not any(a.any() for a in (*planes, *lines))


def test_adam_over_a_flat_array_agrees_with_torch_within_its_range_and_touches_nothing_else(cpu):
    from kernels import adam

    rng = np.random.default_rng(4)
    start = rng.normal(size=100).astype(np.float32)
    values, m, v = start.copy(), np.zeros(100, np.float32), np.zeros(100, np.float32)
    tensor = torch.tensor(start[10:60]).requires_grad_()
    optimiser = torch.optim.Adam([tensor], lr=LR, betas=BETAS, eps=EPSILON)
    for step in range(1, 5):
        gradient = rng.normal(size=100).astype(np.float32)
        tensor.grad = torch.tensor(gradient[10:60])
        optimiser.step()
        adam.adam_flat(values, gradient, m, v, 10, 60, constants(step))
        assert not gradient[10:60].any()
    assert np.abs(values[10:60] - tensor.detach().numpy()).max() < 1e-6
    outside = np.r_[0:10, 60:100]
    assert values[outside].tobytes() == start[outside].tobytes()
    assert not m[outside].any() and not v[outside].any()


@pytest.mark.parametrize("components", [39, 5, 17])
def test_the_gradient_of_total_variation_agrees_with_the_twin(arenas, components):
    from kernels import regularize

    field = DeviceField(device_field.random_state(np.random.default_rng(5)), arenas)
    a = field.arenas
    regularize.tv_backward(a.appearance, a.grad_appearance, field.layout("appearance"), components, 0.7)
    twin = field.reference()
    (0.7 * reference.total_variation([p[:components] for p in twin.appearance_planes])).backward()
    for mode, ours in enumerate(field.read("grad_", "appearance")[0]):
        assert_gradient(f"plane {mode}", ours, twin.appearance_planes[mode].grad)
        assert not ours[components:].any()
