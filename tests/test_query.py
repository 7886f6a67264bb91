"""What a field says of points of the world is what rays through them show, in every space."""

import numpy as np
import pytest
import torch

from tests import reference
from tests.test_spaces import CUBE, NEAR_PLANE, SPACES, make_field
from tslim.errors import ConfigError


def world_points(space: str, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Points that lie in the field mostly, and unit directions."""
    rng = np.random.default_rng(81)
    directions = rng.normal(size=(n, 3))
    points = {
        "box": rng.uniform(-1.1, 1.1, (n, 3)),
        "ndc": np.stack([*rng.uniform(-2, 2, (2, n)), -NEAR_PLANE - rng.exponential(4, n)], 1),
        "contracted": CUBE.mean(0) + 5 * rng.normal(size=(n, 3)),
    }[space]
    if space == "ndc":
        points[0] = (0.1, 0.2, 0.5)  # behind the camera's plane
    return points.astype(np.float32), directions / np.linalg.norm(directions, axis=1, keepdims=True)


def to_field(space: str, points: torch.Tensor) -> torch.Tensor:
    if space == "contracted":
        return reference.contract((points - torch.tensor(CUBE).double().mean(0)) / 2)
    return reference.ndc(points, NEAR_PLANE) if space == "ndc" else points


@pytest.mark.parametrize("space", SPACES)
def test_colour_and_density_are_those_of_the_twin(cpu, space):
    field, state = make_field(space)
    points, directions = world_points(space)
    rgb, density = field.query(points, 3 * directions, rank=9)
    twin = reference.ReferenceField.from_state(state)
    at, d, ranks = torch.tensor(points).double(), torch.tensor(directions), torch.full((len(points),), 9)
    x = to_field(space, at)
    h = 1e-5 * at.abs().max(1, keepdim=True).values.clamp(min=1)
    stretch = ((to_field(space, at + h * d) - to_field(space, at - h * d)) / (2 * h)).norm(dim=1)
    inside = ((x >= torch.tensor(state.box[0])) & (x <= torch.tensor(state.box[1]))).all(1).numpy()
    if space == "ndc":
        inside &= points[:, 2] < 0
    sigma = (reference.density(twin, x, ranks) * stretch * twin.distance_scale).numpy()
    colour = reference.decode(twin, reference.appearance(twin, x, ranks), d).numpy()
    assert 20 < inside.sum() and (density[~inside] == 0).all()
    smooth = inside & (np.abs(density - sigma) < 1e-3 * sigma.max())  # but where the slope jumps
    assert smooth.sum() > 0.95 * inside.sum()
    assert np.abs(rgb - colour)[inside].max() < 1e-4


@pytest.mark.parametrize("space", SPACES)
def test_density_summed_along_a_ray_is_the_opacity_that_is_rendered(cpu, space):
    import tslim
    from tests.test_spaces import make_rays

    field, _ = make_field(space, occupancy=False)
    origins, directions = (a[:8] for a in make_rays(space))
    if space == "box":
        origins = 0.4 * origins
    config = tslim.MarchConfig(step_ratio=0.02, weight_threshold=0.0, early_stop=0.0)
    seen = tslim.Renderer(field, config=config).render_rays(origins, directions)
    edges = np.geomspace(*((0.3, 150.0) if space == "contracted" else (0.1, 1e6)), 20001)
    edges = np.linspace(0.1, 8.0, 4001) if space == "box" else edges
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    points = origins[:, None] + middle[:, None] * directions[:, None]
    _, density = field.query(points, np.broadcast_to(directions[:, None], points.shape))
    opacity = 1 - np.exp(-(density * width).sum(1))
    far = seen.opacity < 0.999
    assert np.abs(opacity - seen.opacity)[far].max(initial=0) < 0.02 and np.abs(opacity - seen.opacity).max() < 0.02
    assert seen.opacity.max() > 0.3


def test_points_keep_their_shape_and_what_makes_no_sense_is_refused(cpu):
    field, _ = make_field("box")
    rgb, density = field.query(np.zeros((4, 5, 3)), np.array([0, 0, 1.0]))
    assert rgb.shape == (4, 5, 3) and density.shape == (4, 5)
    assert [a.shape for a in field.query(np.zeros((0, 3)), np.zeros((0, 3)))] == [(0, 3), (0,)]
    for points, directions, message in (
        (np.zeros((2, 3)), np.ones((3, 3)), "expected"),
        (np.zeros((2, 3)), np.zeros(3), "no length"),
        (np.zeros((2, 3)), np.full(3, np.inf), "none that is finite"),
        (np.zeros((5, 2)), np.ones(3), r"points \(5, 2\) and directions \(3,\): expected"),
    ):
        with pytest.raises(ConfigError, match=message):
            field.query(points, directions)
    with pytest.raises(ConfigError, match="1 to 13"):
        field.query(np.zeros((1, 3)), np.ones(3), rank=0)
