"""What a field does with its grid: round trips, growing, cropping, and measuring empty space, against the twin."""

import numpy as np
import pytest
import torch

from tests import device_field, reference
from tests.device_field import BOX, GRID
from tslim.config import FieldConfig
from tslim.errors import ConfigError
from tslim.scene.domain import Domain

NDC_BOX = np.array([[-1.87, -1.26, -1], [1.87, 1.26, 1]], np.float32)


@pytest.fixture
def state():
    return device_field.random_state(np.random.default_rng(41))


def make(state):
    from tslim.field.field import Field

    return Field.from_state(state)


def all_arrays(state) -> dict[str, np.ndarray]:
    """Every array of a state by name."""
    named = {}
    for kind in ("density_planes", "density_lines", "appearance_planes", "appearance_lines"):
        named |= {f"{kind}[{mode}]": values for mode, values in enumerate(getattr(state, kind))}
    return named | {"basis": state.basis, "rank_scales": state.rank_scales} | state.decoder


def test_a_state_goes_to_the_device_and_back_bit_for_bit(cpu, state):
    returned = make(state).state()
    for name, values in all_arrays(state).items():
        assert all_arrays(returned)[name].tobytes() == values.tobytes(), name
    assert (returned.grid, returned.near, returned.far, returned.config) == (
        state.grid, state.near, state.far, state.config,
    )  # fmt: skip


def test_slimming_is_a_view_that_leaves_the_full_field_as_it_was(cpu, state):
    field = make(state)
    view = field.slim(5)
    assert (view.rank, field.rank) == (5, 13)
    assert view.density is field.density
    slim = view.state()
    assert slim.density_planes[1].tobytes() == state.density_planes[1][:5].tobytes()
    assert slim.basis.tobytes() == np.ascontiguousarray(state.basis[:, :15]).tobytes()
    assert field.state().density_planes[1].tobytes() == state.density_planes[1].tobytes()
    for rank in (0, 14):
        with pytest.raises(ConfigError, match="1 to 13"):
            field.slim(rank)


def test_two_fields_of_one_seed_start_with_the_same_bits_and_of_two_seeds_do_not(cpu):
    from tslim.field.field import Field

    states = [Field(BOX, max_rank=3, grid=8, seed=seed).state() for seed in (1, 1, 2)]
    for kind in ("density_planes", "appearance_lines"):
        a, b, c = (getattr(s, kind)[0] for s in states)
        assert a.tobytes() == b.tobytes() != c.tobytes()
    assert states[0].decoder["w1"].tobytes() == states[1].decoder["w1"].tobytes()
    planes = np.concatenate([p.ravel() for p in states[0].appearance_planes])
    # 0.1 N(0, 1): with some 1700 entries the standard deviation is known to 2 %.
    assert planes.std() == pytest.approx(0.1, rel=0.08) and abs(planes.mean()) < 0.01


def test_growing_the_grid_is_linear_interpolation_with_corners_kept(cpu, state):
    field = make(state)
    field.grow(11)
    larger = field.state()
    assert all(a > b for a, b in zip(larger.grid, GRID, strict=True))
    for kind in ("density", "appearance"):
        for mode, ((u, v), w) in enumerate(zip(reference.PLANE_AXES, reference.LINE_AXIS, strict=True)):
            plane = torch.tensor(getattr(state, f"{kind}_planes")[mode]).double()
            line = torch.tensor(getattr(state, f"{kind}_lines")[mode]).double()
            right = reference.upsample_plane(plane, larger.grid[v], larger.grid[u]).numpy()
            assert np.abs(getattr(larger, f"{kind}_planes")[mode] - right).max() < 1e-5
            right = reference.upsample_line(line, larger.grid[w]).numpy()
            assert np.abs(getattr(larger, f"{kind}_lines")[mode] - right).max() < 1e-5


@pytest.mark.parametrize(("side", "depth"), [(8, 1.0), (19, 1.0), (19, 3.4), (40, 3.4), (33, 0.5)])
def test_voxels_are_as_deep_as_the_field_says_however_its_grid_grows(cpu, side, depth):
    from tslim.field.factors import texels_of
    from tslim.field.field import Field

    domain = Domain.of(NDC_BOX, near=1.0, space="ndc")
    config = FieldConfig(max_rank=2, voxel_depth=depth, density_shift=0.0)
    field = Field.in_domain(domain, config, grid=8, max_grid=side)
    room = field.density.capacity
    field.grow(side)
    sides = (NDC_BOX[1] - NDC_BOX[0]) / np.array(field.grid)
    assert sides[0] == pytest.approx(sides[1], rel=0.12)
    assert sides[2] == pytest.approx(depth * sides[0], rel=0.2)
    assert 0.75 * side**3 < np.prod(field.grid) <= side**3
    assert field.density.capacity == room >= texels_of(field.grid)  # it was taken at the start
    assert 4 * room * 16 * 2 == Field.predicted_bytes(config, side)
    field.refresh_occupancy([2], 0.1, 0.0)
    assert field.occupancy.cells == tuple(n - 1 for n in field.grid)
    assert field.texels_per_unit * (field.box[1] - field.box[0]) == pytest.approx(np.array(field.grid) - 1)
    again = Field.from_state(field.state())
    again.grow(side + 3)
    field.grow(side + 3)
    assert again.grid == field.grid


def test_growing_by_whole_multiples_does_not_change_the_field_at_its_old_texels(cpu, state):
    field = make(state)
    lattice = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in GRID], indexing="ij"), -1).reshape(-1, 3)
    points = BOX[0] + lattice * (BOX[1] - BOX[0]) * 0.999999
    before = field.density_at(points.astype(np.float32))
    scale = np.array([(n - 1) / (2 * n - 2) for n in GRID])
    for factors in (field.density, field.appearance):
        factors.resample(tuple(2 * n - 1 for n in GRID), scale, np.zeros(3))
    assert field.density_at(points.astype(np.float32)) == pytest.approx(before, abs=1e-4)


def test_cropping_keeps_the_remaining_texels_and_the_density_there(cpu, state):
    # Texels are 2.2/6, 1.6/5, 2.3/8 apart; the wanted box asks for texels 1..5, 1..4, 2..7 when widened to texels.
    spacing = (BOX[1] - BOX[0]) / (np.array(GRID) - 1)
    wanted = np.stack([BOX[0] + spacing * [1.3, 1.2, 2.4], BOX[0] + spacing * [4.2, 3.6, 6.5]]).astype(np.float32)
    field = make(state)
    points = np.random.default_rng(3).uniform(wanted[0], wanted[1], (200, 3)).astype(np.float32)
    before = field.density_at(points, 13)
    field.shrink(wanted)
    cropped = field.state()
    assert cropped.grid == (5, 4, 6)
    assert cropped.box == pytest.approx(
        np.stack([BOX[0] + spacing * [1, 1, 2], BOX[0] + spacing * [5, 4, 7]]), abs=1e-6
    )
    assert cropped.appearance_planes[1].tobytes() == state.appearance_planes[1][:, 2:8, 1:6].tobytes()
    assert cropped.density_lines[0].tobytes() == np.ascontiguousarray(state.density_lines[0][:, 2:8]).tobytes()
    assert field.density_at(points, 13) == pytest.approx(before, abs=1e-4)


def test_loading_the_kernels_of_growth_ahead_of_time_changes_nothing(cpu, state):
    field = make(state)
    before = {name: values.tobytes() for name, values in all_arrays(field.state()).items()}
    scratch = (field.density.zeros_like(), field.appearance.zeros_like())
    field.prepare(scratch)
    assert {name: values.tobytes() for name, values in all_arrays(field.state()).items()} == before
    assert field.occupancy is None


def live_cells(alpha: np.ndarray, threshold: float) -> np.ndarray:
    """Vertices (z, y, x) above the threshold, dilated; a cell is occupied if one of its eight corners is."""
    live = reference.dilate(alpha > threshold)
    nz, ny, nx = live.shape
    cells = np.zeros((nz - 1, ny - 1, nx - 1), bool)
    for z in (0, 1):
        for y in (0, 1):
            for x in (0, 1):
                cells |= live[z : z + nz - 1, y : y + ny - 1, x : x + nx - 1]
    return cells


@pytest.mark.parametrize("ranks", [(13,), (1, 5), (3, 16, 17, 40)])
def test_occupied_cells_are_those_of_the_twin(cpu, ranks):
    state = device_field.random_state(np.random.default_rng(41), max_rank=max(13, *ranks))
    field, delta = make(state), 0.1
    axes = [np.linspace(BOX[0, a], BOX[1, a], GRID[a]) for a in range(3)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    points = torch.tensor(np.stack([x, y, z], -1).reshape(-1, 3))
    zeros_like = reference.ReferenceField.from_state(state)
    sigma = torch.stack([reference.density(zeros_like, points, torch.full((len(points),), r)) for r in ranks]).amax(0)
    alpha = (1 - torch.exp(-sigma * delta)).numpy().reshape(GRID[::-1])
    largest = np.sort(alpha.ravel())[-6:]
    threshold = (largest[0] + largest[1]) / 2
    share = field.refresh_occupancy(list(ranks), delta, threshold)
    cells = live_cells(alpha, threshold)
    assert 0.05 < cells.mean() < 0.95
    assert (field.occupancy.to_cells() == cells).all()
    assert share == pytest.approx(cells.mean())


def test_the_tight_box_encloses_exactly_the_occupied_cells(cpu):
    from tslim.field.occupancy import Occupancy

    cells = np.zeros((10, 9, 12), bool)
    assert Occupancy.from_cells(cells, BOX).tight_box() is None
    cells[2, 3, 4] = cells[5, 8, 7] = True
    size = (BOX[1] - BOX[0]) / [12, 9, 10]
    occupancy = Occupancy.from_cells(cells, BOX)
    assert (occupancy.to_cells() == cells).all()
    # x cells 4..7, y cells 3..8, z cells 2..5: the upper faces are one further.
    expected = np.stack([BOX[0] + size * [4, 3, 2], BOX[0] + size * [8, 9, 6]])
    assert occupancy.tight_box() == pytest.approx(expected, abs=1e-6)


def test_what_was_empty_before_stays_empty_unless_asked_otherwise(cpu, state):
    from tslim.field.occupancy import Occupancy

    field = make(state)
    half = np.ones((8, 5, 6), bool)
    half[:4] = False
    field.occupancy = Occupancy.from_cells(half, BOX)
    field.refresh_occupancy([13], 0.1, 1e-4)
    occupied = field.occupancy.to_cells()
    # The vertices of the lower half are empty; those on the border are dilated by one cell.
    assert not occupied[:2].any() and occupied[5:].all()
    field.refresh_occupancy([13], 0.1, 1e-4, within=False)
    assert field.occupancy.to_cells().all()


def test_separate_ranks_have_the_density_of_one_rank_and_the_colours_of_another(cpu):
    from tslim.config import FieldConfig
    from tslim.device import buffers
    from tslim.field.field import Field
    from tslim.rendering.renderer import render
    from tslim.scene.cameras import Cameras

    rng = np.random.default_rng(3)
    field = Field(
        np.array([[-1, -1, -1], [1, 1, 1]]), FieldConfig(max_rank=5, density_shift=-1.0, rank_scales=True), grid=12
    )
    buffers.write(field.rank_scales, rng.normal(1, 0.2, field.rank_scales.shape[0]).astype(np.float32))
    points = rng.uniform(-1, 1, (200, 3))
    for separate_ranks in ((5, 2), (1, 4)):
        separate = Field.from_state(field.state().separate(*separate_ranks))
        assert separate.separate_ranks == separate.state().separate_ranks == separate_ranks
        assert separate.rank == max(separate_ranks)
        np.testing.assert_array_equal(separate.density_at(points), field.density_at(points, separate_ranks[0]))
        assert separate.slim(min(separate_ranks)).state().separate_ranks is None
    # Without any density ranks of its own to tell them apart, colours are those of the rank that appearance has.
    state = field.state()
    state.rank_scales[:, :2] = state.rank_scales[0, :2]
    for array in (*state.density_planes, *state.density_lines):
        array[1:] = 0
    camera = Cameras.look_at(np.array([[3.0, 0.5, 1.0]]), (0, 0, 0), (0, 0, 1), 45, (12, 10))
    whole = render(Field.from_state(state), camera, rank=3)
    np.testing.assert_allclose(render(Field.from_state(state.separate(5, 3)), camera).rgb, whole.rgb, atol=1e-6)
    assert np.abs(render(Field.from_state(state.separate(5, 2)), camera).rgb - whole.rgb).max() > 1e-3
