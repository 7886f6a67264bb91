"""Ray marching against a brute-force march in numpy that looks at every step of every ray."""

import numpy as np
import pytest

from tslim.device import buffers

BOX = np.array([[-1.0, -0.8, -1.2], [1.1, 0.9, 1.0]], np.float32)
STEP = 0.037
N_STEPS = 128
N_WORDS = N_STEPS // 32
NEAR, FAR = 0.5, 6.0


def pack_bits(flags: np.ndarray) -> np.ndarray:
    """Flags as 32-bit words, bit i of word i // 32."""
    bits = np.zeros((flags.size + 31) // 32 * 32, bool)
    bits[: flags.size] = flags.ravel()
    return (bits.reshape(-1, 32) * (1 << np.arange(32, dtype=np.uint64))).sum(1).astype(np.uint32)


def in_blocks(occupied: np.ndarray) -> np.ndarray:
    """Flags (z, y, x) block by block of 8³, x fastest, in each of them x fastest."""
    size = [-(-n // 8) for n in occupied.shape]
    flags = [
        (8 * z + dz, 8 * y + dy, 8 * x + dx) for z, y, x in np.ndindex(*size) for dz, dy, dx in np.ndindex(8, 8, 8)
    ]
    return np.array([np.less(at, occupied.shape).all() and occupied[at] for at in flags])


def coarse_blocks(occupied: np.ndarray) -> np.ndarray:
    """One flag for each block of 8³ cells that holds an occupied one."""
    size = [-(-n // 8) for n in occupied.shape]
    padded = np.zeros([8 * n for n in size], bool)
    padded[tuple(slice(n) for n in occupied.shape)] = occupied
    return padded.reshape(size[0], 8, size[1], 8, size[2], 8).any((1, 3, 5))


def make_rays(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rays towards the box from around it; some start inside, some miss, some run along an axis or in a face."""
    origins = rng.normal(size=(n, 3))
    origins *= 3 / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = rng.uniform(-0.9, 0.9, (n, 3)) - origins
    origins[: n // 8] = rng.uniform(-0.5, 0.5, (n // 8, 3))
    directions[n // 8 : n // 4] *= -1
    origins[-6:] = [[-3, 0.1, 0.2], [3, 0.1, 0.2], [0.3, -3, 0.2], [0.3, 3, 0.2], [0.3, 0.1, -3], [0.3, 0.1, 3]]
    directions[-6:] = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return origins.astype(np.float32), directions.astype(np.float32)


def run_march(
    origins, directions, occupied, *, jitter_step=-1, seed=0, near=NEAR, far=FAR, n_steps=N_STEPS, most=2**31 - 1
):
    """The kernels' march: (t0 of each ray, list of sample distances of each ray)."""
    from kernels import march
    from kernels.cells import Cells

    n = len(origins)
    cells = (0, 0, 0) if occupied is None else occupied.shape[::-1]
    flags = np.zeros((1, 1, 1), bool) if occupied is None else occupied
    coarse = coarse_blocks(flags)
    t0, mask = np.zeros(n, np.float32), np.zeros(n * N_WORDS, np.uint32)
    count, start = np.zeros(n, np.int32), np.zeros(n + 1, np.int32)
    how = march.March(
        near=near, far=far, step_size=STEP, n_steps=n_steps, samples=most, seed=seed, jitter_step=jitter_step
    )
    per_unit = np.maximum(cells, 1) / (BOX[1] - BOX[0])
    lattice = Cells(count=cells, origin=BOX[0], per_unit=per_unit, blocks=coarse.shape[::-1])
    ray_o, ray_d = np.ascontiguousarray(origins).ravel(), np.ascontiguousarray(directions).ravel()
    march.march(
        n, ray_o, ray_d, how, march.Box(low=BOX[0], high=BOX[1]), lattice, pack_bits(in_blocks(flags)),
        pack_bits(coarse), t0, mask, count,
    )  # fmt: skip
    march.offsets_from_counts(n, n, count, start)
    t = np.zeros(max(start[-1], 1), np.float32)
    march.expand(n, n, how, t0, mask, start, t)
    return t0, [t[a:b] for a, b in zip(start, start[1:], strict=False)]


def test_occupancy_packs_cells_as_the_march_reads_them(cpu):
    from tslim.device import buffers
    from tslim.field.occupancy import Occupancy

    for size in ((11, 19, 26), (8, 16, 8), (1, 1, 1)):
        cells = np.random.default_rng(sum(size)).random(size) < 0.02
        occupancy = Occupancy.from_cells(cells, BOX)
        np.testing.assert_array_equal(buffers.read(occupancy.words), pack_bits(in_blocks(cells)))
        np.testing.assert_array_equal(buffers.read(occupancy.coarse), pack_bits(coarse_blocks(cells)))
        np.testing.assert_array_equal(occupancy.to_cells(), cells)


def brute_force(t0: float, origin, direction, occupied, far=FAR, n_steps=N_STEPS) -> tuple[set[int], set[int]]:
    """(steps that are samples, steps too close to a border of a cell or of the box to say) of one ray, in float64."""
    samples, unclear = set(), set()
    cells = None if occupied is None else np.array(occupied.shape[::-1])
    for k in range(n_steps):
        t = float(t0) + k * STEP
        inside = (origin.astype(float) + t * direction - BOX[0]) / (BOX[1] - BOX[0])
        margin = min(np.abs(inside).min(), np.abs(1 - inside).min(), abs(t - far))
        q = None
        if cells is not None:
            q = inside * cells
            margin = min(margin, np.abs(q - np.round(q)).min() / cells.max())
        if margin < 1e-5:
            unclear.add(k)
        elif (inside > 0).all() and (inside < 1).all() and t < far:
            x, y, z = (0, 0, 0) if q is None else np.floor(q).astype(int)
            if occupied is None or occupied[z, y, x]:
                samples.add(k)
    return samples, unclear


def occupancy(kind: str, rng: np.random.Generator) -> np.ndarray | None:
    if kind == "everything":
        return None
    if kind == "half of the cells":
        return rng.random((11, 19, 26)) < 0.5
    cells = np.zeros((30, 24, 33), bool)
    if kind == "one block":
        cells[9:14, 10:13, 17:22] = True
    return cells


@pytest.mark.parametrize("kind", ["everything", "half of the cells", "one block", "nothing"])
@pytest.mark.parametrize("jitter_step", [-1, 3])
def test_samples_are_exactly_the_steps_in_the_box_and_in_occupied_cells(cpu, kind, jitter_step):
    rng = np.random.default_rng(5)
    origins, directions = make_rays(rng, 120)
    occupied = occupancy(kind, rng)
    t0, samples = run_march(origins, directions, occupied, jitter_step=jitter_step)
    total = 0
    for i in range(len(origins)):
        steps = (samples[i] - t0[i]) / STEP
        found = np.round(steps).astype(int)
        assert np.abs(steps - found).max(initial=0) < 1e-3
        assert (np.diff(found) > 0).all(), "samples of a ray must run front to back"
        expected, unclear = brute_force(t0[i], origins[i], directions[i], occupied)
        assert set(found.tolist()) - unclear == expected - unclear, f"ray {i}"
        total += len(expected)
    assert (total == 0) == (kind == "nothing"), "the test must have looked at samples"


@pytest.mark.parametrize("most", [1, 3])
def test_a_ray_is_followed_no_farther_than_to_as_many_samples_as_are_asked_for(cpu, most):
    rng = np.random.default_rng(5)
    origins, directions = make_rays(rng, 120)
    occupied = occupancy("half of the cells", rng)
    _, everything = run_march(origins, directions, occupied)
    _, first = run_march(origins, directions, occupied, most=most)
    assert max(map(len, everything)) > 3
    for few, all_of_them in zip(first, everything, strict=True):
        np.testing.assert_array_equal(few, all_of_them[:most])


def test_steps_start_where_the_ray_enters_the_box_but_not_before_near(cpu):
    # Along x from (-3, 0, 0): the box begins at x = -1, 2 away; from (0, 0, 0) the ray starts at near = 0.5.
    origins = np.array([[-3, 0, 0], [0, 0, 0]], np.float32)
    directions = np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    t0, _ = run_march(origins, directions, None)
    assert t0 == pytest.approx([2.0, 0.5], abs=1e-6)


def test_no_sample_lies_beyond_far_or_after_the_last_step(cpu):
    origins, directions = make_rays(np.random.default_rng(6), 60)
    _, samples = run_march(origins, directions, None, far=3.0)
    assert max(s.max(initial=0) for s in samples) <= 3.0
    _, samples = run_march(origins, directions, None, n_steps=10)
    assert max(map(len, samples)) == 10


def test_jitter_shifts_each_ray_by_its_own_part_of_a_step_and_repeats(cpu):
    origins, directions = make_rays(np.random.default_rng(7), 2000)
    base, _ = run_march(origins, directions, None)
    first, _ = run_march(origins, directions, None, jitter_step=4, seed=9)
    again, _ = run_march(origins, directions, None, jitter_step=4, seed=9)
    later, _ = run_march(origins, directions, None, jitter_step=5, seed=9)
    shift = (first - base) / STEP
    assert (first == again).all()
    assert shift.min() >= 0 and shift.max() <= 1
    # Uniform on [0, 1): mean 1/2, standard deviation 1/sqrt(12) = 0.289.
    assert shift.mean() == pytest.approx(0.5, abs=0.03) and shift.std() == pytest.approx(0.289, abs=0.02)
    assert abs(np.corrcoef(shift, (later - base) / STEP)[0, 1]) < 0.1
    assert abs(np.corrcoef(shift[1:], shift[:-1])[0, 1]) < 0.1


@pytest.mark.parametrize("n", [1, 255, 256, 257, 1000])
def test_running_sums_are_those_of_numpy_for_any_number_of_rays(cpu, n):
    # On a GPU a thread sums 256 of them, and others do the same beside it.
    from kernels.groups import sum_counts
    from kernels.march import offsets_from_counts

    rng = np.random.default_rng(n)
    counts, others = (rng.integers(0, 9, n).astype(np.int32) for _ in range(2))
    starts = [buffers.upload(np.full(n + 3, -7, np.int32)) for _ in range(3)]
    period, totals = max(n // 3, 1), buffers.upload(np.full(2, -7, np.int32))
    offsets_from_counts(n, period, buffers.upload(counts), starts[0])
    sum_counts(n, buffers.upload(counts), buffers.upload(others), starts[1], starts[2], totals)
    assert buffers.numbers(totals) == [counts.sum(), others.sum()]
    for found, counted in zip(starts, (counts[np.arange(n) % period], counts, others), strict=True):
        found = buffers.read(found)
        assert found[: n + 1].tolist() == [0, *np.cumsum(counted)] and (found[n + 1 :] == -7).all()
