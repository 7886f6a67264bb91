"""Weights, pixels and their adjoints: against arithmetic done by hand, the torch twin, and central differences."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import DeviceField, Samples, assert_gradient
from tslim.config import FieldConfig

DELTA = 0.13
BACKGROUND = (0.2, 0.9, 0.6)


@pytest.fixture(scope="module")
def arenas(cpu):
    return device_field.Arenas()


@dataclass
class Traced:
    """The staged forward pass of the kernels, with everything that the backward pass reads."""

    field: DeviceField
    samples: Samples
    stop: float = 0.0
    threshold: float = 1e-4
    delta: float = DELTA
    softplus: int = 1
    background: tuple[float, float, float] = BACKGROUND
    span: float = 0.0
    feature: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        from kernels import groups, trace

        s, f = self.samples, self.field
        n, total = len(s.ranks), max(len(s.t), 1)
        self.feature, self.weight = np.zeros(total, np.float32), np.zeros(total, np.float32)
        self.at = np.zeros(3 * total, np.float32)
        self.used = np.zeros(2 * n, np.int32)
        self.visible, self.groups = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self.opacity, self.depth = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.medium = trace.Medium(
            activation=device_field.activation(f.state.config.density_shift, self.softplus),
            delta_scaled=self.delta * f.state.config.distance_scale,
            early_stop=self.stop,
        )
        self.visibility = groups.Visibility(weight_threshold=self.threshold, span=self.span)
        trace.trace_density(
            n, 1, s.origins.ravel(), s.directions.ravel(), s.ranks, s.start, s.t, f.arenas.density, f.rank_scales,
            f.lattice("density"), self.medium, self.at, self.feature, self.weight, self.used,
        )  # fmt: skip
        self.visible_start, self.ray_group_start = np.zeros(n + 1, np.int32), np.zeros(n + 1, np.int32)
        totals = np.zeros(2, np.int32)
        groups.count_visible(n, self.used, self.weight, s.t, self.visibility, self.visible, self.groups)
        groups.sum_counts(n, self.visible, self.groups, self.visible_start, self.ray_group_start, totals)
        assert totals.tolist() == [self.visible_start[-1], self.ray_group_start[-1]]
        visible, n_groups = max(self.visible_start[-1], 1), max(self.ray_group_start[-1], 1)
        self.visible_sample, self.visible_part = np.zeros(visible, np.int32), np.zeros(visible, np.float32)
        self.visible_at = np.zeros(3 * visible, np.float32)
        self.group_ray, self.group_start = np.zeros(n_groups, np.int32), np.zeros(n_groups + 1, np.int32)
        self.group_visible, self.group_weight = np.zeros(n_groups, np.float32), np.zeros(n_groups, np.float32)
        groups.collect_visible(
            n, self.used, self.at, self.weight, s.t, self.visibility, self.visible_start, self.ray_group_start,
            self.visible_sample, self.visible_at, self.group_ray, self.group_start,
        )  # fmt: skip
        groups.weigh_groups(
            int(self.ray_group_start[-1]), self.visibility, self.used, self.ray_group_start, self.weight,
            self.visible_sample, self.group_ray, self.group_start,
            self.visible_part, self.group_visible, self.group_weight,
        )  # fmt: skip
        self.pixels(np.zeros((n_groups, 3), np.float32))

    @property
    def n_used(self) -> np.ndarray:
        return np.diff(self.used.reshape(-1, 2))[:, 0]

    def pixels(self, colours: np.ndarray) -> np.ndarray:
        from kernels import composite

        pixel = np.zeros(3 * len(self.samples.ranks), np.float32)
        composite.composite(
            len(self.samples.ranks), self.used, self.ray_group_start, self.samples.t, self.weight, self.group_weight,
            colours.ravel(), self.background, pixel, self.opacity, self.depth,
        )  # fmt: skip
        return pixel.reshape(-1, 3)

    def backward(self, colours, grad_pixel, grad_opacity, grad_depth):
        """(gradient of colours, of each sample's density feature, of the density columns of the scales)."""
        from kernels import composite, trace

        s, n = self.samples, len(self.samples.ranks)
        grad_colours, sample_grad = np.zeros_like(colours).ravel(), np.zeros_like(self.feature)
        ray_scales, rank_scales = np.zeros(2 * n, np.float32), np.zeros_like(self.field.rank_scales)
        n_groups = int(self.ray_group_start[-1])
        composite.colour_gradients(n_groups, self.group_ray, self.group_weight, grad_pixel.ravel(), grad_colours)
        composition = composite.Composition(background=self.background, visibility=self.visibility, with_penalties=0)
        composite.composite_backward(
            n, self.used, self.ray_group_start, self.group_start, s.t, self.weight, colours.ravel(), composition,
            grad_pixel.ravel(), grad_opacity, grad_depth, sample_grad,
        )  # fmt: skip
        trace.trace_backward(
            n, s.ranks, self.used, s.t, self.feature, self.weight, self.field.rank_scales, self.medium, 0.0,
            sample_grad, ray_scales,
        )  # fmt: skip
        rank_rows = self.field.state.rank
        trace.sum_rank_scales(n, rank_rows, s.ranks, ray_scales, rank_scales)
        return grad_colours.reshape(colours.shape), sample_grad, rank_scales.reshape(rank_rows, 56)[:, :2]


def ramp(arenas) -> DeviceField:
    """A field of density max(2x, 0): in mode 2 the line along x holds 2x, its plane ones; all else is zero."""
    config = FieldConfig(density_activation="relu", density_shift=0.0, distance_scale=1.0)
    state = device_field.random_state(np.random.default_rng(0), rank_scales=False, config=config)
    for values in (*state.density_planes, *state.density_lines):
        values[...] = 0
    state.density_planes[2][0] = 1
    state.density_lines[2][0] = 2 * np.linspace(device_field.BOX[0, 0], device_field.BOX[1, 0], device_field.GRID[0])
    return DeviceField(state, arenas)


def samples_on_the_ramp() -> tuple[Samples, np.ndarray]:
    """Ray 0 has no sample; ray 1 runs down the ramp from x = 0.9 with three samples of alpha 3/4, 1/2 and 1/4.

    With unit steps alpha is 1 - exp(-2x), so the samples are at x = ln(4)/2, ln(2)/2, ln(4/3)/2.
    """
    x = np.log([4, 2, 4 / 3]) / 2
    t = 0.9 - x
    samples = Samples(
        origins=np.array([[0.9, 0.1, 0.1]] * 2, np.float32),
        directions=np.array([[-1, 0, 0]] * 2, np.float32),
        ranks=np.array([5, 1], np.int32),
        start=np.array([0, 0, 3], np.int32),
        t=t.astype(np.float32),
        ray=np.array([1, 1, 1], np.int32),
    )
    return samples, t


def test_weights_depth_and_opacity_of_three_samples_are_those_computed_by_hand(arenas):
    # Light before each sample: 1, 1 - 3/4 = 1/4, 1/4 (1 - 1/2) = 1/8; after the last 1/8 (1 - 1/4) = 3/32.
    # Weights: 3/4, 1/4 1/2 = 1/8, 1/8 1/4 = 1/32. Opacity 1 - 3/32 = 29/32.
    samples, t = samples_on_the_ramp()
    traced = Traced(ramp(arenas), samples, delta=1.0, softplus=0)
    assert traced.weight == pytest.approx([3 / 4, 1 / 8, 1 / 32], abs=2e-6)
    assert traced.opacity == pytest.approx([0, 29 / 32], abs=2e-6)
    assert traced.depth == pytest.approx([0, 3 / 4 * t[0] + 1 / 8 * t[1] + 1 / 32 * t[2]], abs=2e-6)
    assert traced.used.tolist() == [0, 0, 0, 3] and traced.visible_start.tolist() == [0, 0, 3]


def test_a_pixel_is_the_weighted_colours_over_the_background(arenas):
    # Red, green and blue samples with weights 3/4, 1/8, 1/32 and 3/32 of the background; ray 0 sees only that.
    samples, _ = samples_on_the_ramp()
    traced = Traced(ramp(arenas), samples, delta=1.0, softplus=0)
    pixel = traced.pixels(np.eye(3, dtype=np.float32))
    expected = [3 / 4 + 3 / 32 * 0.2, 1 / 8 + 3 / 32 * 0.9, 1 / 32 + 3 / 32 * 0.6]
    assert pixel == pytest.approx(np.array([BACKGROUND, expected]), abs=2e-6)


def test_a_sample_below_the_weight_threshold_is_dark_but_hides_the_background(arenas):
    # A threshold of 1/16 leaves red and green; blue keeps only the background's 3/32 of 0.6.
    samples, t = samples_on_the_ramp()
    traced = Traced(ramp(arenas), samples, threshold=1 / 16, delta=1.0, softplus=0)
    assert traced.visible_start.tolist() == [0, 0, 2]
    assert traced.group_ray.tolist() == [1, 1]
    assert traced.visible_sample.tolist() == [0, 1]
    assert traced.group_visible == pytest.approx([3 / 4, 1 / 8], abs=2e-6)
    assert traced.visible_part == pytest.approx([1, 1])
    pixel = traced.pixels(np.eye(3, dtype=np.float32)[:2])
    assert pixel[1] == pytest.approx([3 / 4 + 3 / 32 * 0.2, 1 / 8 + 3 / 32 * 0.9, 3 / 32 * 0.6], abs=2e-6)


def test_samples_within_the_span_of_a_groups_first_share_one_colour(arenas):
    # The samples lie 0.347 and 0.203 apart. Red for the first group and green for the second; weights 3/4, 1/8, 1/32.
    samples, _ = samples_on_the_ramp()
    for span, starts, weights in ((0.4, [0, 2, 3], [7 / 8, 1 / 32]), (0.3, [0, 1, 3], [3 / 4, 5 / 32])):
        traced = Traced(ramp(arenas), samples, delta=1.0, softplus=0, span=span)
        assert traced.groups.tolist() == [0, 2] and traced.ray_group_start.tolist() == [0, 0, 2]
        assert traced.group_start.tolist() == starts and traced.group_ray.tolist() == [1, 1]
        assert traced.group_weight == pytest.approx(weights, abs=2e-6)
        pixel = traced.pixels(np.eye(3, dtype=np.float32)[:2])
        expected = [weights[0] + 3 / 32 * 0.2, weights[1] + 3 / 32 * 0.9, 3 / 32 * 0.6]
        assert pixel[1] == pytest.approx(expected, abs=2e-6)
    assert Traced(ramp(arenas), samples, delta=1.0, softplus=0, span=10.0).group_weight == pytest.approx([29 / 32])


def test_a_sample_that_is_not_kept_takes_the_colour_of_the_group_before_it_or_of_the_first(arenas):
    # Weights 3/4, 1/8, 1/32; a threshold of 1/16 leaves the last out of the mean, not out of what the colour covers.
    samples, _ = samples_on_the_ramp()
    traced = Traced(ramp(arenas), samples, delta=1.0, softplus=0, span=0.3, threshold=1 / 16)
    assert traced.group_start.tolist() == [0, 1, 2]
    assert traced.group_visible == pytest.approx([3 / 4, 1 / 8], abs=2e-6)
    assert traced.group_weight == pytest.approx([3 / 4, 5 / 32], abs=2e-6)
    # From behind: densities ln(4/3), ln 2, ln 4 give weights 1/4, 3/4 1/2, 3/8 3/4; only the second is above 0.3.
    samples.origins[1, 0], samples.directions[1, 0] = 0.0, 1.0
    samples.t[:] = np.log([4 / 3, 2, 4]) / 2
    traced = Traced(ramp(arenas), samples, delta=1.0, softplus=0, span=0.3, threshold=0.3)
    assert traced.group_visible == pytest.approx([3 / 8], abs=2e-6)
    assert traced.group_weight == pytest.approx([1 / 4 + 3 / 8 + 9 / 32], abs=2e-6)


def test_what_a_weight_does_to_the_mean_of_its_group_is_that_computed_by_hand(cpu):
    # One group of weights 3 and 1, samples 0 and 2; dL/dP . p is 2 + 3 + 1 = 6 and 1 + 1 + 0 = 2 over three columns,
    # their mean 20/4 = 5. (6 - 5) / 4 and (2 - 5) / 4; the sample alone in its group has no effect.
    from kernels import groups

    starts, parts = np.array([0, 2, 3], np.int32), np.array([3 / 4, 1 / 4, 1], np.float32)
    slopes, samples = np.array([2, 1, 7, 3, 1, 8, 1, 0, 2], np.float32), np.array([0, 2, 3], np.int32)
    counts, grad = groups.Groups(n=2, visible=3, chunks=1, shared=1), np.ones(4, np.float32)
    groups.mean_gradients(counts, starts, np.array([4, 2], np.float32), samples, parts, slopes, grad)
    assert grad == pytest.approx([1 + 1 / 4, 1, 1 - 3 / 4, 1], abs=1e-6)


def test_a_ray_ends_behind_the_sample_that_leaves_less_light_than_the_stop(arenas):
    # After the second sample 1/8 is left, less than 0.2: the third is not looked at, and 1/8 of the background shows.
    samples, _ = samples_on_the_ramp()
    traced = Traced(ramp(arenas), samples, stop=0.2, delta=1.0, softplus=0)
    assert traced.used.tolist() == [0, 0, 0, 2] and traced.visible_start.tolist() == [0, 0, 2]
    assert traced.opacity == pytest.approx([0, 7 / 8], abs=2e-6)
    pixel = traced.pixels(np.eye(3, dtype=np.float32)[:2])
    assert pixel[1] == pytest.approx([3 / 4 + 0.2 / 8, 1 / 8 + 0.9 / 8, 0.6 / 8], abs=2e-6)


def test_gradients_of_three_samples_are_those_computed_by_hand(arenas):
    # The loss is the red of ray 1, over black; only the second sample is red (1), so that dL/dw = (0, 1, 0).
    # dL/dsigma_i = T_{i+1} dL/dw_i - sum over j > i of w_j dL/dw_j, with T_2 = 1/8 and w_1 = 1/8:
    #   sample 0: 0 - 1/8;   sample 1: 1/8 - 0;   sample 2: 0.   dL/dcolour = w in red.
    # The density's scale and shift of rank 1: sum of dL/dsigma f with f = ln 4, ln 2, and sum of dL/dsigma.
    samples, _ = samples_on_the_ramp()
    traced = Traced(ramp(arenas), samples, delta=1.0, softplus=0, background=(0.0, 0.0, 0.0))
    colours = np.array([[0, 0.3, 0], [1, 0, 0.7], [0, 0, 0]], np.float32)
    red = np.array([[0, 0, 0], [1, 0, 0]], np.float32)
    none = np.zeros(2, np.float32)
    grad_colours, sample_grad, rank_scales = traced.backward(colours, red, none, none)
    assert sample_grad == pytest.approx([-1 / 8, 1 / 8, 0], abs=2e-6)
    assert grad_colours == pytest.approx(np.array([[3 / 4, 0, 0], [1 / 8, 0, 0], [1 / 32, 0, 0]]), abs=2e-6)
    assert rank_scales[0] == pytest.approx([(-math.log(4) + math.log(2)) / 8, 0], abs=2e-6)
    assert not rank_scales[1:].any()


def dense(arenas, activation: str = "softplus", seed: int = 11) -> DeviceField:
    config = FieldConfig(density_shift=0.3, distance_scale=4.0, density_activation=activation)
    return DeviceField(device_field.random_state(np.random.default_rng(seed), config=config), arenas)


def twin_of(traced: Traced, colours: torch.Tensor, twin: reference.ReferenceField) -> reference.Composited:
    """The twin's pixels from the same samples, ``colours`` being those of the kept ones."""
    s = traced.samples
    _, _, ray, t, ranks = s.as_torch()
    sigma = reference.density(twin, s.points, ranks[ray])
    weight = reference.weights(sigma * traced.medium.delta_scaled, ray, traced.stop)
    visible = weight > traced.threshold
    assert int(visible.sum()) == traced.visible_start[-1], "a weight lies on the threshold: choose another seed"
    everywhere = torch.zeros(len(t), 3, dtype=torch.float64).index_put((visible.nonzero()[:, 0],), colours)
    background = torch.tensor(traced.background).double()
    return reference.composite(weight, everywhere, t, ray, len(ranks), background, traced.threshold)


@pytest.mark.parametrize(("activation", "stop", "threshold"), [("softplus", 0, 1e-4), ("relu", 0.03, 0.02)])
def test_pixels_and_every_gradient_agree_with_the_twin(arenas, activation, stop, threshold):
    from tests.test_gradients_field import run_density_backward

    rng = np.random.default_rng(12)
    samples = device_field.random_samples(rng, ranks=(5, 13, 1, 7), step=DELTA)
    field = dense(arenas, activation)
    traced = Traced(field, samples, stop=stop, threshold=threshold, softplus=int(activation == "softplus"))
    assert (traced.n_used < np.diff(samples.start)).any() == (stop > 0)
    assert traced.visible_start[-1] < traced.n_used.sum()
    n = len(samples.ranks)
    colours = rng.random((traced.visible_start[-1], 3)).astype(np.float32)
    upstream = [rng.normal(size=(n, 3)).astype(np.float32), *rng.normal(size=(2, n)).astype(np.float32)]
    pixel = traced.pixels(colours)
    grad_colours, sample_grad, rank_scales = traced.backward(colours, *upstream)
    run_density_backward(field, samples, traced.n_used, sample_grad)

    twin, c = field.reference(), torch.tensor(colours).double().requires_grad_()
    seen = twin_of(traced, c, twin)
    for ours, right in ((pixel, seen.rgb), (traced.opacity, seen.opacity), (traced.depth, seen.depth)):
        assert np.abs(ours - right.detach().numpy()).max() < 3e-5
    outputs = (seen.rgb, seen.opacity, seen.depth)
    sum((o * torch.tensor(u).double()).sum() for o, u in zip(outputs, upstream, strict=True)).backward()
    assert_gradient("colours", grad_colours, c.grad)
    assert_gradient("rank_scales", rank_scales, twin.rank_scales.grad[:, :2])
    ours = field.gradients()
    for name, tensor in twin.named_parameters().items():
        if name.startswith("density"):
            assert_gradient(name, ours[name], tensor.grad)


def test_the_adjoint_agrees_with_central_differences(arenas):
    # Along a random direction of all density factors; no threshold or stop, whose jumps have no derivative.
    from tests.test_gradients_field import run_density_backward

    rng = np.random.default_rng(13)
    samples = device_field.random_samples(rng, ranks=(5, 13, 1, 7), step=DELTA)
    field = dense(arenas)
    traced = Traced(field, samples, threshold=-1.0)
    n = len(samples.ranks)
    colours = rng.random((traced.visible_start[-1], 3)).astype(np.float32)
    upstream = [rng.normal(size=(n, 3)).astype(np.float32), *rng.normal(size=(2, n)).astype(np.float32)]
    _, sample_grad, _ = traced.backward(colours, *upstream)
    run_density_backward(field, samples, traced.n_used, sample_grad)
    gradients = field.gradients()
    factors = {
        f"{kind}[{mode}]": values
        for kind in ("density_planes", "density_lines")
        for mode, values in enumerate(getattr(field.state, kind))
    }
    start = {name: values.copy() for name, values in factors.items()}
    size = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    for _ in range(4):
        directions = {name: rng.normal(size=values.shape) for name, values in factors.items()}
        ends = []
        for sign in (1, -1):
            for name, values in factors.items():
                values[...] = start[name] + sign * 0.003 * directions[name]
            field.upload()
            moved = Traced(field, samples, threshold=-1.0)
            outputs = (moved.pixels(colours), moved.opacity, moved.depth)
            ends.append(sum(float((o.astype(np.float64) * u).sum()) for o, u in zip(outputs, upstream, strict=True)))
        slope = (ends[0] - ends[1]) / 0.006
        predicted = sum(float((gradients[k] * d).sum()) for k, d in directions.items())
        assert slope == pytest.approx(predicted, abs=1e-3 * size)


def test_the_squared_error_and_its_gradient_agree_with_the_twin_also_where_the_clamp_acts(cpu):
    from kernels.loss import squared_error

    rng = np.random.default_rng(14)
    pixel, target = rng.uniform(-0.3, 1.3, (50, 3)), rng.uniform(0, 1, (50, 3))
    ray_weight = rng.uniform(0.5, 2, 50).astype(np.float32)
    loss, grad = np.zeros(50, np.float32), np.zeros(150, np.float32)
    flat = [np.ascontiguousarray(a, np.float32).ravel() for a in (pixel, target)]
    squared_error(50, *flat, ray_weight, 0.25, loss, grad)
    p = torch.tensor(flat[0].reshape(50, 3)).double().requires_grad_()
    per_ray = ((p.clamp(0, 1) - torch.tensor(flat[1].reshape(50, 3)).double()) ** 2).mean(1)
    (0.25 * (per_ray * torch.tensor(ray_weight)).sum()).backward()
    assert loss == pytest.approx(per_ray.detach().numpy(), abs=1e-6)
    assert_gradient("pixel", grad, p.grad)


def test_tracing_twice_gives_the_same_bits(arenas):
    samples = device_field.random_samples(np.random.default_rng(15), ranks=(5, 13), step=DELTA)
    one, two = (Traced(dense(arenas), samples) for _ in range(2))
    for name in (
        "feature",
        "weight",
        "used",
        "opacity",
        "depth",
        "visible_sample",
        "visible_part",
        "group_ray",
        "group_start",
    ):
        assert (getattr(one, name) == getattr(two, name)).all(), name
