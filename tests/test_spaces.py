"""Rays in NDC and in contracted space: where samples lie, what they render, and gradients, against the twin."""

import dataclasses

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import assert_gradient, on_host
from tests.test_gradients_pipeline import device_gradients
from tslim.config import FieldConfig
from tslim.device import buffers
from tslim.errors import ConfigError
from tslim.scene import domain
from tslim.scene.domain import Domain

BACKGROUND = (0.3, 0.8, 0.5)
N_RAYS = 40
NEAR_PLANE = 1.5
CUBE = np.array([[-1.5, 0.5, -2.0], [2.5, 4.5, 2.0]], np.float32)
"""of side 4, around (0.5, 2.5, 0)"""
SPACES = ("box", "ndc", "contracted")


def make_field(
    space: str,
    *,
    occupancy: bool = True,
    grid: tuple[int, int, int] = (9, 8, 7),
    max_rank: int = device_field.MAX_RANK,
):
    """A field of random numbers in which every part matters, and its state."""
    from tslim.field.field import Field

    rng = np.random.default_rng(31)
    config = FieldConfig(density_shift=-0.5, distance_scale=3.0)
    state = device_field.random_state(rng, max_rank=max_rank, rank_scales=True, config=config, grid=grid)
    if space == "ndc":
        state.domain = Domain.of(np.array([[-1.3, -1.1, -1.0], [1.2, 1.0, 1.0]]), near=NEAR_PLANE, space="ndc")
    if space == "contracted":
        state.domain = Domain.of(CUBE, near=0.3, far=150.0, space="contracted")
    if occupancy:
        state.occupancy, state.occupancy_box = rng.random((9, 10, 8)) < 0.7, state.box.copy()
    return Field.from_state(state), state


def make_rays(space: str, n: int = N_RAYS) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions in the world, float32."""
    rng = np.random.default_rng(32)
    if space == "ndc":
        origins = rng.normal(0, 0.2, (n, 3))
        origins[0, 2] = -2.5  # beyond the near plane, as a viewer that flies into the scene
        directions = np.concatenate([rng.uniform(-0.5, 0.5, (n, 2)), -np.ones((n, 1))], 1)
        directions[1, 2] = 1.0  # looks away from the scene
    elif space == "contracted":
        origins = CUBE.mean(0) + rng.uniform(-5, 5, (n, 3))
        directions = CUBE.mean(0) + rng.uniform(-3, 3, (n, 3)) - origins
        directions[: n // 4] *= -1
    else:
        origins = 3 * rng.normal(size=(n, 3))
        origins *= 3 / np.linalg.norm(origins, axis=1, keepdims=True)
        directions = rng.uniform(-0.8, 0.8, (n, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return origins.astype(np.float32), directions.astype(np.float32)


def run(field, space: str, *, step_ratio=0.5, stop=0.0, threshold=1e-4, span=0.0, jitter=(3, 7)):
    """A pipeline after its forward pass."""
    from tslim.rendering.batch import Rays
    from tslim.rendering.pipeline import MarchConfig, Pipeline

    origins, directions = make_rays(space)
    pipeline = Pipeline(field, Rays(N_RAYS), MarchConfig(step_ratio, threshold, stop, span))
    buffers.write(pipeline.rays.origins, origins.ravel())
    buffers.write(pipeline.rays.directions, directions.ravel())
    buffers.write(pipeline.rays.ranks, np.resize(np.array((5, 1, 13, 8, 3), np.int32), N_RAYS))
    pipeline.forward(N_RAYS, max_rank=13, background=BACKGROUND, jitter=jitter)
    return pipeline


def samples_of(pipeline) -> tuple[np.ndarray, np.ndarray]:
    """(t, ray) of all samples."""
    host = on_host(pipeline)
    start = host.ray_start[: N_RAYS + 1]
    return host.sample_t[: pipeline.n_samples], np.repeat(np.arange(N_RAYS), np.diff(start))


def field_points(space: str, origins: torch.Tensor, directions: torch.Tensor, t: torch.Tensor, ray: torch.Tensor):
    """Field coordinates (n, 3) of samples, by the twin."""
    if space == "ndc":
        origins, directions = reference.ndc_path(origins, directions, NEAR_PLANE)
    points = origins[ray] + t[:, None] * directions[ray]
    if space == "contracted":
        points = reference.contract((points - torch.tensor(CUBE).double().mean(0)) / 2)
    return points


def render_twin(
    twin,
    pipeline,
    space: str,
    rays: tuple[torch.Tensor, torch.Tensor],
    stop: float = 0.0,
    threshold: float = 0.0,
    span: float = 0.0,
):
    """The twin's picture of the samples of a pipeline, from rays with the given origins and directions."""
    t, ray = samples_of(pipeline)
    t, ray = torch.tensor(t).double(), torch.tensor(ray)
    points = field_points(space, *rays, t, ray)
    return reference.render_samples(
        twin, *rays, ray, t, torch.full_like(t, pipeline.step_size),
        torch.tensor(on_host(pipeline).rays.ranks).long(), torch.tensor(BACKGROUND).double(), stop, threshold,
        span * pipeline.field.voxel, points, torch.tensor(on_host(pipeline).sample_along[: len(t)]).double(),
    )  # fmt: skip


def twin_rays(space: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``make_rays`` as leaves in double precision."""
    return tuple(torch.tensor(a).double().requires_grad_() for a in make_rays(space))


def gradients_of_rays(pipeline) -> tuple[np.ndarray, np.ndarray]:
    """(N_RAYS, 3) gradients of origins and directions after a backward pass."""
    by = [buffers.array(3 * N_RAYS) for _ in range(2)]
    pipeline.ray_gradients(*by)
    return tuple(buffers.read(a).reshape(-1, 3) for a in by)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("stop", "threshold", "span"), [(0.0, 1e-4, 0.0), (0.05, 0.01, 0.0), (0.0, 1e-3, 1.7)])
def test_pixels_and_all_gradients_agree_with_the_twin_in_every_space(cpu, space, stop, threshold, span):
    from tslim.field.parameters import Gradients

    field, state = make_field(space)
    pipeline = run(field, space, stop=stop, threshold=threshold, span=span)
    twin = reference.ReferenceField.from_state(state, requires_grad=True)
    rays = twin_rays(space)
    seen = render_twin(twin, pipeline, space, rays, stop, threshold, span)
    host = on_host(pipeline)
    assert np.abs(host.rays.pixel.reshape(-1, 3) - seen.rgb.detach().numpy()).max() < 5e-5
    assert np.abs(host.rays.opacity - seen.opacity.detach().numpy()).max() < 5e-5
    assert (host.rays.opacity > 0.2).sum() > 10 and pipeline.n_visible > 100
    assert (pipeline.n_groups < pipeline.n_visible) == (span > 0)

    rng = np.random.default_rng(33)
    for name in ("grad_pixel", "grad_opacity", "grad_depth"):
        into = getattr(pipeline.rays, name)
        buffers.write(into, np.float32(rng.normal(size=into.shape)))
    gradients = Gradients(field)
    pipeline.backward(gradients, of_rays=True)
    of_rays = gradients_of_rays(pipeline)
    loss = (seen.rgb * torch.tensor(host.rays.grad_pixel.reshape(-1, 3)).double()).sum()
    loss = loss + (seen.opacity * torch.tensor(host.rays.grad_opacity).double()).sum()
    (loss + (seen.depth * torch.tensor(host.rays.grad_depth).double()).sum()).backward()
    ours = device_gradients(field, gradients)
    for name, tensor in twin.named_parameters().items():
        assert_gradient(name, ours[name], tensor.grad, tolerance=1e-3)
    for name, found, leaf in zip(("origins", "directions"), of_rays, rays, strict=True):
        assert_gradient(name, found, leaf.grad, tolerance=2e-3)
    gradients.release()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("which", [0, 1], ids=["origins", "directions"])
def test_the_gradients_of_rays_are_those_of_central_differences(cpu, space, which):
    """Of the twin in double precision, with samples at fixed t: ours are held against the twin's own above."""
    from tslim.field.parameters import Gradients

    field, state = make_field(space)
    pipeline = run(field, space, threshold=0.0)
    buffers.write(pipeline.rays.grad_pixel, np.float32(1))
    gradients = Gradients(field)
    pipeline.backward(gradients, of_rays=True)
    ours = gradients_of_rays(pipeline)[which]
    gradients.release()
    twin = reference.ReferenceField.from_state(state)
    rays, h = [torch.tensor(a).double() for a in make_rays(space)], 1e-5
    way = torch.tensor(np.random.default_rng(35).normal(size=(N_RAYS, 3)))
    ends = []
    for sign in (1, -1):
        moved = [*rays]
        moved[which] = rays[which] + sign * h * way
        ends.append(render_twin(twin, pipeline, space, tuple(moved)).rgb.sum(1))
    right = ((ends[0] - ends[1]) / (2 * h)).numpy()
    close = np.abs((ours * way.numpy()).sum(1) - right) < 2e-3 * np.abs(right).max()
    assert close.mean() > 0.95, "only a sample on a texel's border may have another slope on its two sides"
    assert (np.abs(right) > 0.05 * np.abs(right).max()).mean() > 0.3


def test_the_gradients_of_rays_have_to_be_asked_for(cpu):
    from tslim.field.parameters import Gradients

    field, _ = make_field("box")
    pipeline = run(field, "box")
    gradients = Gradients(field)
    pipeline.backward(gradients)
    gradients.release()
    with pytest.raises(ValueError, match="of_rays"):
        gradients_of_rays(pipeline)


def test_contracted_samples_are_a_step_apart_in_the_field_and_miss_nothing(cpu):
    field, _ = make_field("contracted", occupancy=False, grid=(40, 40, 40))
    pipeline = run(field, "contracted", step_ratio=1.0, jitter=None)
    t, ray = samples_of(pipeline)
    origins, directions = (torch.tensor(a).double() for a in make_rays("contracted"))
    x = field_points("contracted", origins, directions, torch.tensor(t).double(), torch.tensor(ray)).numpy()
    world = make_rays("contracted")[0][ray] + t[:, None] * make_rays("contracted")[1][ray]
    q = (world - CUBE.mean(0)) / 2
    assert np.abs(x).max() <= 2 and (np.abs(x).max(1) > 1.9).sum() > N_RAYS / 2, "rays must reach the horizon"
    slab = np.where(np.abs(q).max(1) <= 1, 0, np.argmax(np.abs(q), 1) * 2 + 1 + (np.take_along_axis(q, np.argmax(
        np.abs(q), 1)[:, None], 1)[:, 0] > 0))  # fmt: skip
    within = (ray[1:] == ray[:-1]) & (slab[1:] == slab[:-1])
    steps = np.linalg.norm(np.diff(x, axis=0), axis=1)
    assert within.sum() > 1000
    assert np.abs(steps[within] / pipeline.step_size - 1).max() < 0.02
    for i in range(N_RAYS):
        mine = t[ray == i]
        assert (np.diff(mine) > 0).all() and mine[0] == pytest.approx(field.near) and mine[-1] < field.far
    # Where a ray comes into the cube it jumps by no more than a step, so that nothing in there is passed over.
    into = (ray[1:] == ray[:-1]) & (slab[1:] == 0) & (slab[:-1] != 0)
    assert into.sum() > 5 and steps[into].max() < 1.5 * pipeline.step_size


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_contracted_samples_in_occupied_cells_are_those_of_a_march_that_skips_nothing(cpu, share):
    grid = (70, 71, 72)
    full, _ = make_field("contracted", occupancy=False, grid=grid)
    some, state = make_field("contracted", occupancy=True, grid=grid)
    rng = np.random.default_rng(34)
    blocks = rng.random((9, 9, 9)) < share  # the others, of 8³ cells, are empty as a whole
    cells = np.kron(blocks, np.ones((8, 8, 8), bool))[:71, :70, :69] & (rng.random((71, 70, 69)) < 0.5)
    some = type(some).from_state(dataclasses.replace(state, occupancy=cells))
    pipeline = run(full, "contracted")
    t, ray = samples_of(pipeline)
    along = buffers.read(pipeline.sample_along)[: len(t)]
    pipeline = run(some, "contracted")
    visible_t, kept_ray = samples_of(pipeline)
    kept_along = buffers.read(pipeline.sample_along)[: len(visible_t)]
    origins, directions = (torch.tensor(a).double() for a in make_rays("contracted"))
    x = field_points("contracted", origins, directions, torch.tensor(t).double(), torch.tensor(ray)).numpy()
    position = (x + 2) / 4 * np.array([69, 70, 71])
    c = np.clip(np.floor(position).astype(int), 0, [68, 69, 70])
    occupied = cells[c[:, 2], c[:, 1], c[:, 0]]
    # Rounding decides on which side a step right at the border of a cell, the cube or a slab lies.
    size = np.sort(np.abs(x), 1)
    unclear = (np.abs(position - np.round(position)) < 5e-3).any(1) | (np.abs(size[:, 2] - 1) < 1e-3)
    number = {
        (int(i), round(float(a / pipeline.step_size))): k for k, (i, a) in enumerate(zip(ray, along, strict=True))
    }
    every = [number[int(i), round(float(a / pipeline.step_size))] for i, a in zip(kept_ray, kept_along, strict=True)]
    assert len(set(every)) == len(every)
    np.testing.assert_allclose(visible_t, t[every], rtol=2e-3, err_msg="a step lies where it does if none is skipped")
    wrong = (np.isin(np.arange(len(t)), every) != occupied) & ~unclear
    assert not wrong.any() and 50 < len(every) < len(t) / 2


def test_ndc_rays_start_at_the_near_plane_run_straight_and_end_at_infinity(cpu):
    field, _ = make_field("ndc", occupancy=False)
    pipeline = run(field, "ndc")
    host = on_host(pipeline.space)
    origins, directions = make_rays("ndc")
    start, along = host.marched_o.reshape(-1, 3), host.marched_d.reshape(-1, 3)
    assert np.abs(start[2:, 2] + 1).max() < 1e-6 and start[0, 2] == pytest.approx(1 - 2 * NEAR_PLANE / 2.5)
    for distance in (3.0, 5.0, 80.0):
        image = domain.to_ndc(origins + distance * directions, NEAR_PLANE)
        t = ((image - start) * along).sum(1)
        seen = np.arange(N_RAYS) != 1
        assert np.abs(start + t[:, None] * along - image)[seen].max() < 1e-4 and (t[seen] > 0).all()
    t, ray = samples_of(pipeline)
    assert not (ray == 1).any(), "a ray that looks away sees nothing"
    x = start[ray] + t[:, None] * along[ray]
    assert (x > field.box[0] - 1e-5).all() and (x < field.box[1] + 1e-5).all()
    assert x[:, 2].min() < -0.9 and x[:, 2].max() > 0.9


def test_depth_in_ndc_is_the_distance_in_the_world(cpu):
    from tslim.rendering.ray_space import RaySpace

    field, _ = make_field("ndc")
    origins, directions = make_rays("ndc")
    space = RaySpace(field, buffers.upload(origins.ravel()), buffers.upload(directions.ravel()))
    space.update(N_RAYS)
    host, opacity = on_host(space), np.linspace(0.2, 1, N_RAYS, dtype=np.float32)
    for distance in (3.0, 9.0):
        image = domain.to_ndc(origins + distance * directions, NEAR_PLANE)
        t = ((image - host.marched_o.reshape(-1, 3)) * host.marched_d.reshape(-1, 3)).sum(1)
        depth = buffers.upload((opacity * t).astype(np.float32))
        space.to_world_depth(N_RAYS, buffers.upload(opacity), depth)
        seen = np.arange(N_RAYS) != 1
        assert (buffers.read(depth) / opacity)[seen] == pytest.approx(distance, rel=1e-4)


def test_depth_in_ndc_has_the_gradients_of_the_twin(cpu):
    from tslim.rendering.ray_space import RaySpace

    field, _ = make_field("ndc")
    rng, seen = np.random.default_rng(36), np.arange(N_RAYS) != 1
    opacity, mean = rng.uniform(0.2, 1, N_RAYS), rng.uniform(0.1, 1.5, N_RAYS)
    grads = [rng.normal(size=N_RAYS).astype(np.float32) for _ in range(2)]
    leaves = [torch.tensor(a[seen]).double().requires_grad_() for a in (*make_rays("ndc"), opacity, opacity * mean)]
    right = reference.ndc_depth(leaves[0], leaves[1], NEAR_PLANE, leaves[2], leaves[3])
    (right * torch.tensor(grads[0][seen]).double() + leaves[2] * torch.tensor(grads[1][seen]).double()).sum().backward()

    arrays = [buffers.upload(np.float32(a).ravel()) for a in (*make_rays("ndc"), opacity, opacity * mean)]
    space = RaySpace(field, arrays[0], arrays[1])
    space.to_world_depth(N_RAYS, arrays[2], arrays[3])
    assert buffers.read(arrays[3])[seen] == pytest.approx(right.detach().numpy(), rel=1e-3)
    by = [buffers.array(3 * N_RAYS), buffers.array(3 * N_RAYS), buffers.upload(grads[1]), buffers.upload(grads[0])]
    space.depth_backward(N_RAYS, arrays[2], arrays[3], by[2], by[3], by[0], by[1])
    for name, ours, leaf in zip(("origins", "directions", "opacity", "depth"), by, leaves, strict=True):
        assert_gradient(name, buffers.read(ours).reshape(N_RAYS, -1)[seen], leaf.grad, tolerance=2e-3)


@pytest.mark.parametrize("space", SPACES)
def test_a_model_file_keeps_the_space_and_needs_nothing_else(cpu, space, tmp_path):
    from tslim.field.field import Field
    from tslim.model import model_file

    field, _ = make_field(space)
    again = Field.from_state(model_file.read(field.save(tmp_path / "model.slim", precision="float32")))
    assert (again.space, again.near, again.far) == (field.space, field.near, field.far)
    assert (again.cube is None) == (space != "contracted")
    assert on_host(run(again, space)).rays.pixel.tobytes() == on_host(run(field, space)).rays.pixel.tobytes()
    slim = Field.from_state(model_file.read(field.slim(4).save(tmp_path / "slim.slim")))
    assert slim.space == space and slim.world_box.tolist() == field.world_box.tolist()


def test_a_contracted_field_is_made_from_the_cube_that_a_scene_states(cpu):
    from tslim.field.field import Field

    field = Field(CUBE, max_rank=1, grid=8, space="contracted", near=0.1, far=90)
    assert field.box.tolist() == [[-2.0] * 3, [2.0] * 3] and field.world_box.tolist() == CUBE.tolist()
    with pytest.raises(ConfigError, match="cube"):
        Field([[0, 0, 0], [1, 1, 2]], max_rank=1, grid=8, space="contracted")
    with pytest.raises(ConfigError, match="near"):
        Field(CUBE, max_rank=1, grid=8, space="ndc")
    with pytest.raises(ConfigError, match="space sphere"):
        Field(CUBE, max_rank=1, grid=8, space="sphere")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("distortion", "occlusion"), [(0.7, 0.0), (0.0, 0.3), (0.2, 0.4)])
def test_penalties_on_weights_have_the_gradients_of_the_twin(cpu, space, distortion, occlusion):
    from tslim.field.parameters import Gradients
    from tslim.rendering.penalties import Penalties

    field, state = make_field(space)
    pipeline = run(field, space)
    buffers.write(pipeline.rays.grad_pixel, np.float32(0))
    gradients = Gradients(field)
    pipeline.backward(gradients, Penalties(distortion, occlusion, 0.8))
    ours = device_gradients(field, gradients)
    gradients.release()

    twin = reference.ReferenceField.from_state(state, requires_grad=True)
    weight = render_twin(twin, pipeline, space, twin_rays(space), threshold=1e-4).weight
    ray = torch.tensor(samples_of(pipeline)[1])
    begin, length = {"box": (0.1, np.linalg.norm(state.box[1] - state.box[0])), "ndc": (0, 2), "contracted": (0, 4)}[
        space
    ]
    s = (torch.tensor(on_host(pipeline).sample_along[: len(ray)]).double() - begin) / length
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(N_RAYS):
        w, at = weight[ray == i], s[ray == i]
        loss = loss + distortion * (w[:, None] * w[None] * (at[:, None] - at[None]).abs()).sum()
        loss = loss + distortion * (w * w).sum() * pipeline.step_size / length / 3 + occlusion * w[at < 0.8].sum()
    (loss / N_RAYS).backward()
    for name, tensor in twin.named_parameters().items():
        if name.startswith("density"):
            assert_gradient(name, ours[name], tensor.grad, tolerance=1e-3)


@pytest.mark.parametrize("space", SPACES)
def test_density_near_a_camera_learns_the_more_slowly_and_elsewhere_as_ever(cpu, space):
    from tslim.field.parameters import Gradients

    field, _ = make_field(space)
    pipeline = run(field, space)
    buffers.write(pipeline.rays.grad_pixel, np.float32(np.random.default_rng(1).normal(size=3 * N_RAYS)))
    gradients = Gradients(field)
    found = []
    for fade in (0.0, 0.6):
        pipeline.backward(gradients, fade=fade)
        found.append(on_host(pipeline).sample_grad[: pipeline.n_samples].copy())
    gradients.release()
    near = samples_of(pipeline)[0] / (0.6 * pipeline.space.farthest)
    assert found[1] == pytest.approx(found[0] * np.minimum(near, 1) ** 2, rel=1e-4, abs=1e-9)
    assert (near < 1).any() and (near > 1).any()
    assert pipeline.space.farthest == {"box": pytest.approx(pipeline.space.extent[1]), "ndc": 2, "contracted": 4}[space]
