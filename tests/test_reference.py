"""The reference that kernels are held against is itself held against something: torch's own layers, and arithmetic."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests import reference

torch.set_num_threads(2)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def random(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_interpolation_by_hand_agrees_with_grid_sample_also_on_texels_and_at_the_corners(generator):
    line, plane = random(generator, 5, 9), random(generator, 5, 7, 6)
    size = torch.tensor([6.0, 7.0, 9.0], dtype=torch.float64) - 1
    x = torch.rand(200, 3, generator=generator, dtype=torch.float64) * size
    x[:40] = x[:40].round()
    x[40], x[41] = 0, size
    by_hand, sampled = reference.cross_check_interpolation(line, plane, x)
    for ours, torchs in zip(by_hand, sampled, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)


def test_gradients_of_interpolation_by_hand_agree_with_those_of_grid_sample(generator):
    line, plane = random(generator, 3, 9).requires_grad_(), random(generator, 3, 7, 6).requires_grad_()
    x = torch.rand(100, 3, generator=generator, dtype=torch.float64) * torch.tensor([5.0, 6.0, 8.0])
    x[:20] = x[:20].round()
    by_hand, sampled = reference.cross_check_interpolation(line, plane, x)
    upstream = [random(generator, *value.shape) for value in by_hand]
    ours = torch.autograd.grad(by_hand, (line, plane), upstream)
    torchs = torch.autograd.grad(sampled, (line, plane), upstream)
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_a_texel_lies_on_each_corner_of_the_box_and_points_outside_take_the_nearest_face():
    box = torch.tensor([[-1.0, 0.0, 2.0], [1.0, 4.0, 3.0]], dtype=torch.float64)
    points = torch.tensor([[-1.0, 4.0, 2.5], [-7.0, 9.0, 3.0]], dtype=torch.float64)
    x = reference.texel_coordinates(box, (5, 9, 3), points)
    assert x.tolist() == [[0, 8, 1], [0, 8, 2]]


def test_weights_of_three_samples_are_those_computed_by_hand():
    # alpha = 1/2, 1/4, 1/2 when tau = ln 2, ln 4/3, ln 2. Light: 1, 1/2, 3/8. Weights: 1/2, 1/8, 3/16.
    tau = torch.tensor([math.log(2), math.log(4 / 3), math.log(2)], dtype=torch.float64)
    one_ray = torch.zeros(3, dtype=torch.int64)
    weight = reference.weights(tau, one_ray)
    torch.testing.assert_close(weight, torch.tensor([1 / 2, 1 / 8, 3 / 16], dtype=torch.float64))
    # With a stop at 0.4 the third sample, reached by 3/8 of the light, is dropped.
    stopped = reference.weights(tau, one_ray, stop=0.4)
    torch.testing.assert_close(stopped, torch.tensor([1 / 2, 1 / 8, 0], dtype=torch.float64))
    # Each ray starts with all of the light.
    own_rays = reference.weights(tau, torch.arange(3))
    torch.testing.assert_close(own_rays, torch.tensor([1 / 2, 1 / 4, 1 / 2], dtype=torch.float64))


def test_compositing_of_two_rays_is_that_computed_by_hand():
    # Ray 0: 1/2 red at t = 2 and 1/4 green at t = 4, so 1/4 is background. Ray 1 has no sample.
    weight = torch.tensor([0.5, 0.25], dtype=torch.float64)
    colour = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)
    t, ray = torch.tensor([2.0, 4.0], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    background = torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64)
    seen = reference.composite(weight, colour, t, ray, 2, background)
    expected = torch.tensor([[0.5, 0.25 + 0.1, 0.2], [0, 0.4, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(seen.rgb, expected)
    assert seen.depth.tolist() == [0.5 * 2 + 0.25 * 4, 0]
    assert seen.opacity.tolist() == [0.75, 0]
    # Above a threshold of 0.3 only red is decoded; the opacity, and so the background's share, stays.
    partly = reference.composite(weight, colour, t, ray, 2, background, threshold=0.3)
    torch.testing.assert_close(partly.rgb[0], torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64))


def test_softplus_agrees_with_torch_and_does_not_overflow():
    x = torch.tensor([-800.0, -20, -1, 0, 1, 20, 700], dtype=torch.float64)
    ours = reference.activate(x, "softplus", -10.0)
    torch.testing.assert_close(ours, functional.softplus(x - 10, threshold=700), rtol=1e-12, atol=0)


def test_spherical_harmonics_are_orthonormal_over_the_sphere():
    # Gauss-Legendre in z and equal steps in azimuth integrate polynomials of degree 4 exactly.
    z, wz = np.polynomial.legendre.leggauss(6)
    azimuth = np.arange(12) * 2 * np.pi / 12
    zz, aa = np.meshgrid(z, azimuth, indexing="ij")
    ring = np.sqrt(1 - zz**2)
    directions = torch.tensor(np.stack([ring * np.cos(aa), ring * np.sin(aa), zz], -1).reshape(-1, 3))
    w = torch.tensor(np.repeat(wz * 2 * np.pi / 12, 12))
    basis = reference.sh_basis(directions)
    torch.testing.assert_close(basis.T @ (w[:, None] * basis), torch.eye(9, dtype=torch.float64))


def test_positional_encoding_puts_frequencies_inside_coordinates_and_sines_first():
    encoded = reference.positional_encoding(torch.tensor([[0.3, 0.5]], dtype=torch.float64), 2)
    angles = [0.3, 0.6, 0.5, 1.0]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(encoded[0], torch.tensor(expected, dtype=torch.float64))


def test_adam_agrees_with_torch_over_several_steps(generator):
    start = random(generator, 11)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=0.02, betas=(0.9, 0.99), eps=1e-8)
    ours = reference.Adam(start)
    for _ in range(5):
        gradient = random(generator, 11)
        theirs.grad = gradient.clone()
        optimiser.step()
        ours.step(gradient, 0.02)
    torch.testing.assert_close(ours.value, theirs.detach(), rtol=1e-12, atol=0)


def test_total_variation_of_a_ramp_is_that_computed_by_hand():
    # One component, 3 x 4 texels, value 2 v + u: every step along v is 2, along u 1. 0.02 (4 + 1) per mode.
    ramp = (2 * torch.arange(3)[:, None] + torch.arange(4)[None, :]).double()[None]
    assert reference.total_variation([ramp, ramp]).item() == pytest.approx(2 * 0.02 * 5)


def test_upsampling_agrees_with_interpolate(generator):
    line, plane = random(generator, 3, 5), random(generator, 3, 6, 5)
    torch.testing.assert_close(
        reference.upsample_line(line, 12),
        functional.interpolate(
            line[:, :, None, None].squeeze(-1).permute(2, 0, 1), 12, mode="linear", align_corners=True
        )[0],
    )
    torch.testing.assert_close(
        reference.upsample_plane(plane, 9, 14),
        functional.interpolate(plane[None], (9, 14), mode="bilinear", align_corners=True)[0],
    )


def test_dilation_agrees_with_max_pooling(generator):
    cells = torch.rand(5, 6, 7, generator=generator) < 0.05
    pooled = functional.max_pool3d(cells.float()[None, None], 3, stride=1, padding=1)[0, 0] > 0
    assert (reference.dilate(cells.numpy()) == pooled.numpy()).all()
