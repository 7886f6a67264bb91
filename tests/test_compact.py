"""Compact model files: what rounding may change, what it may not, and files that are cut, damaged or lie.

That they round-trip and are their own prefixes is tested with those of other precisions, in ``test_model_file``.
"""

import bz2
import dataclasses
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

import tslim
from tests.test_model_file import SEPARATE, assert_same, make_state, with_header
from tslim.errors import ConfigError, ModelFileError
from tslim.field.field import Field
from tslim.model import model_file
from tslim.model.rounding import COARSER, ROUNDINGS, rounded, visible_texels
from tslim.model.state import LINE_AXES, PLANE_AXES, FieldState

OLD = Path(__file__).parent / "data" / "model_files"


@pytest.fixture(scope="module")
def trained(cpu):
    """A field after a short training, and its scene."""
    scene = tslim.builtin_scene(size=48, train=12, test=2)
    settings = dataclasses.replace(
        tslim.presets.with_steps(tslim.presets.demo(), 250),
        batch_rays=1024,
        batch_decoded=0,
        grid_start=24,
        grid_end=48,
    )
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    for _ in trainer.run():
        pass
    return trainer.field, scene


def features(state: FieldState, mode: int) -> tuple[np.ndarray, np.ndarray]:
    """What each component of a mode adds at each texel of its volume: to density, and the norm of what to colour."""
    d = np.einsum("kvu,kw->kwvu", state.density_planes[mode], state.density_lines[mode], dtype=np.float64)
    a = np.einsum("kvu,kw->kwvu", state.appearance_planes[mode], state.appearance_lines[mode], dtype=np.float64)
    basis = state.basis[mode] * np.repeat(state.rank_scales[:, 2:29], 3, axis=0)
    return d * state.rank_scales[:, :1, None, None], a * np.linalg.norm(basis, axis=1)[:, None, None, None]


@pytest.mark.parametrize("rounding", [0.25, 0.5])
def test_rounding_moves_every_component_by_as_much(rounding):
    """A step of a plane moves colour features by ``rounding``, root mean square over the line; errors are uniform."""
    state = make_state(rank=3, grid=(24, 20, 28), occupancy=None)
    state.rank_scales = np.repeat(np.array([1, 0.5, 1.5], np.float32)[:, None], 56, axis=1)
    state.density_planes = [2 * a for a in state.density_planes]
    state.basis = 0.3 * state.basis
    state.appearance_lines = [np.geomspace(0.5, 3, 9)[:, None].astype(np.float32) * a for a in state.appearance_lines]
    small = rounded(state, rounding)
    # Planes are off by a step's standard deviation, 1/sqrt(12), and lines by as much in steps six times finer.
    expected = rounding * np.sqrt((1 + 1 / 36) / 12)
    for mode in range(3):
        for exact, other, coarser in zip(features(state, mode), features(small, mode), (COARSER, 1), strict=True):
            error = np.sqrt(((other - exact) ** 2).mean(axis=(1, 2, 3)))
            np.testing.assert_allclose(error, coarser * expected, rtol=0.2)


def test_every_texel_that_is_seen_is_within_half_a_step_of_what_it_was():
    state = make_state(rank=3, grid=(24, 20, 28), occupancy=(9, 8, 11))
    small, column = rounded(state, 0.5), 0
    for kind, per_rank in (("density", 1), ("appearance", 3)):
        for mode, seen in enumerate(visible_texels(state)):
            for name, where in zip(("planes", "lines"), seen, strict=True):
                exact, found = (getattr(s, f"{kind}_{name}")[mode][:, where] for s in (state, small))
                steps = small.steps[:, column : column + per_rank].reshape(-1, 1)
                assert np.abs(found - exact).max(where=np.abs(exact) < 127 * steps, initial=0) > 0.1 * steps.min()
                assert (np.abs(found - exact) <= (0.5 + 1e-3) * steps).all()
                column += per_rank


def test_what_neighbours_foretell_takes_few_bytes():
    """A ramp of a tenth of a step a texel takes a sixth of the bytes that the same numbers in no order take."""
    state = make_state(rank=1, grid=(64, 64, 64), rank_scales=False, occupancy=None)
    state.appearance_lines = [np.ones_like(line) for line in state.appearance_lines]
    state.basis = np.eye(3, 27, dtype=np.float32)[None].repeat(3, axis=0)
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.float32)
    sizes = []
    for plane in (np.zeros_like(ramp), ramp, np.random.default_rng(0).permuted(ramp)):
        state.appearance_planes = [np.stack([plane, -plane, plane.T]) for _ in range(3)]
        small = rounded(state, 10)
        assert small.steps[0, 6] == pytest.approx(10)
        sizes.append(model_file.size_of(small))
    flat, foretold, shuffled = sizes
    assert foretold - flat < 0.2 * (shuffled - flat)


def test_a_component_that_needs_more_than_eight_bits_keeps_its_range():
    state = make_state(rank=2, grid=(12, 12, 12), occupancy=None)
    state.density_planes[1][1, 3, 4] = 1000
    small = rounded(state, 0.01)
    assert small.density_planes[1][1, 3, 4] == pytest.approx(1000, rel=1e-6)
    assert np.abs(small.density_planes[1][1] - state.density_planes[1][1]).max() <= 1000 / 127 / 2 * 1.001


def test_what_does_not_matter_takes_no_bytes():
    state = make_state(rank=4, grid=(32, 32, 32), occupancy=None)
    state.basis[:, 3:6] = 0
    state.density_lines = [np.where(np.arange(4)[:, None] == 1, 0, a).astype(np.float32) for a in state.density_lines]
    first, second = np.diff(model_file.sizes(rounded(state)))[[1, 0]]
    assert second < first / 6


def brute_force_visible(state: FieldState, rng: np.random.Generator) -> list[tuple[set, set]]:
    """The texels that random samples in occupied cells read: per mode those of the plane (v, u), and of the line."""
    cells, (low, high) = state.occupancy, state.occupancy_box
    count = np.array(cells.shape[::-1])
    where = np.argwhere(cells)[:, ::-1]
    inside = where[rng.integers(0, len(where), 60_000)] + rng.random((60_000, 3)).round(2)
    points = low + inside / count * (high - low)
    points = points[((points >= state.box[0]) & (points <= state.box[1])).all(axis=1)]
    at = (points - state.box[0]) * (np.array(state.grid) - 1) / (state.box[1] - state.box[0])
    below = np.clip(np.floor(at), 0, np.array(state.grid) - 2).astype(int)
    read = []
    for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True):
        plane = {(b[v] + i, b[u] + j) for b in below for i in (0, 1) for j in (0, 1)}
        read.append((plane, {b[w] + i for b in below for i in (0, 1)}))
    return read


@pytest.mark.parametrize("seed", range(3))
def test_every_texel_that_a_sample_can_read_is_kept_and_few_others(seed):
    rng = np.random.default_rng(seed)
    state = make_state(rank=1, grid=(17, 12, 21), occupancy=(9, 8, 11), seed=seed)
    state.occupancy[:] = False
    for corner in rng.integers(0, (9, 8, 11), (3, 3)):
        state.occupancy[tuple(slice(c, c + 2) for c in corner)] = True
    for (plane, line), (read_plane, read_line) in zip(
        visible_texels(state), brute_force_visible(state, rng), strict=True
    ):
        kept_plane, kept_line = {tuple(t) for t in np.argwhere(plane)}, set(np.flatnonzero(line))
        assert read_plane <= kept_plane and read_line <= kept_line
        assert not plane.all()
        assert len(kept_plane) <= 1.6 * len(read_plane) + 20


def test_rounding_finely_leaves_the_picture_as_it_was_though_empty_space_is_cleared(trained):
    """What is zeroed is never read: pictures differ by eight bits of factors and nine of the decoder only."""
    field, scene = trained
    exact = model_file.convert(field.state(), "float32")
    fine = rounded(exact, 1e-6)
    cleared = sum((a == 0).mean() for a in fine.density_planes) / 3
    assert cleared > sum((a == 0).mean() for a in exact.density_planes) / 3 + 0.05
    views = scene.test.subset([0])
    row, other = (next(tslim.rank_sweep(Field.from_state(s), views, (s.rank,))) for s in (exact, fine))
    assert abs(row.psnr - other.psnr) < 0.04


def test_a_compact_model_loses_little_and_takes_a_fraction_of_the_bytes(trained, tmp_path):
    field, scene = trained
    path = field.save(tmp_path / "a.slim", precision="compact")
    small = tslim.load(path)
    sizes = {"half": None, "compact": model_file.sizes(model_file.read(path))}
    rows = {
        name: next(tslim.rank_sweep(f, scene.test, (f.rank,), sizes=sizes[name]))
        for name, f in (("half", field), ("compact", small))
    }
    assert rows["compact"].bytes == path.stat().st_size < 0.3 * rows["half"].bytes
    assert rows["compact"].psnr > rows["half"].psnr - 0.3
    assert model_file.write(model_file.read(path), tmp_path / "b.slim").read_bytes() == path.read_bytes()
    larger = small.save(tmp_path / "c.slim")
    assert larger.stat().st_size == pytest.approx(rows["half"].bytes, rel=0.01)


def test_what_has_changed_since_rounding_is_not_written_in_its_steps(trained, tmp_path):
    field, _ = trained
    path = field.save(tmp_path / "a.slim", precision="compact")
    rest = model_file.read(path)
    rest.density_planes[0] = rest.density_planes[0] + 0.37 * rest.steps[:, :1, None]
    with pytest.raises(ModelFileError, match="has changed since rounding"):
        model_file.write(rest, tmp_path / "c.slim")
    # A field knows nothing of the file that it came from: half precision, unless asked.
    assert model_file.read_header(tslim.load(path).save(tmp_path / "b.slim")).precision == "float16"


@pytest.mark.parametrize("separate_ranks", SEPARATE)
def test_separate_ranks_are_compact_too(tmp_path, separate_ranks):
    state = model_file.convert(make_state(rank=5).separate(*separate_ranks), "compact")
    whole = model_file.write(state, tmp_path / "a.slim").read_bytes()
    header = model_file.read_header(tmp_path / "a.slim")
    assert header.separate_ranks == separate_ranks and header.spare_bytes == 0
    assert_same(model_file.read(tmp_path / "a.slim"), state)
    for rank in range(1, max(separate_ranks) + 1):
        slimmed = model_file.write(state.slim(rank), tmp_path / "b.slim").read_bytes()
        assert len(slimmed) == model_file.sizes(state)[rank - 1]
        assert_same(model_file.read(tmp_path / "b.slim"), state.slim(rank))
        if rank > min(separate_ranks):
            assert slimmed == whole[: header.bytes_at(rank)]
    assert_same(model_file.convert(make_state(rank=5), "compact").separate(*separate_ranks), state)


def test_a_compact_file_cut_at_any_byte_is_a_smaller_model_or_a_clear_error(tmp_path):
    state = model_file.convert(make_state(rank=3, grid=(3, 2, 4), occupancy=(3, 3, 3)), "compact")
    whole = model_file.write(state, tmp_path / "a.slim").read_bytes()
    header = model_file.read_header(tmp_path / "a.slim")
    cut = tmp_path / "cut.slim"
    around = {end + n for end in header.ends for n in range(-9, 9)}
    for n in sorted({*range(100), *range(100, len(whole), 97), *around} & set(range(len(whole)))):
        cut.write_bytes(whole[:n])
        rank = sum(end <= n for end in header.ends)
        if rank:
            assert_same(model_file.read(cut), state.slim(rank))
        else:
            with pytest.raises(ModelFileError, match=r"cut\.slim is (cut short|not a tslim model file)"):
                model_file.read(cut)


def test_every_flipped_byte_of_a_compact_file_is_noticed(tmp_path):
    state = model_file.convert(make_state(rank=2, grid=(2, 3, 2), occupancy=(3, 3, 3)), "compact")
    whole = model_file.write(state, tmp_path / "a.slim").read_bytes()
    bad, ends = tmp_path / "bad.slim", model_file.read_header(tmp_path / "a.slim").ends
    for n in sorted({*range(100), *range(100, len(whole), 31), *range(ends[0] - 9, ends[0] + 40)}):
        bad.write_bytes(whole[:n] + bytes([whole[n] ^ 0x10]) + whole[n + 1 :])
        # A block that now claims to be longer than the file counts as cut: what is before it is a model.
        if ends[0] + 4 <= n < ends[0] + 8:
            assert_same(model_file.read(bad, rank=1), state.slim(1))
        else:
            with pytest.raises(ModelFileError, match=r"bad\.slim"):
                model_file.read(bad)


def with_block(path, change) -> None:
    """Changes the body of the first rank's block, with a length and a checksum that fit; drops ranks after it."""
    data, header = path.read_bytes(), model_file.read_header(path)
    body = change(data[header.fixed_bytes + 8 : header.ends[0]])
    block = struct.pack("<I", len(body)) + body
    path.write_bytes(data[: header.fixed_bytes] + struct.pack("<I", zlib.crc32(block)) + block)


def assert_lying_block(path) -> None:
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"a\.slim is damaged: rank 1 cannot be unpacked"):
        model_file.read(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


SIDE = 24 + 48
"""bytes of spreads and pulls"""
CARRIED = 512
"""of the numbers that the lanes carry: the basis and the first steps"""
LIES = {
    "a spread out of range": lambda b: b"\xff" + b[1:],
    "more words than there are": lambda b: b[: SIDE + 70] + struct.pack("<I", 2**31) + b[SIDE + 74 :],
    "fewer words than lanes": lambda b: b[: SIDE + 70] + struct.pack("<I", 100) + b[SIDE + 74 :],
    "words that end too early": lambda b: b[: SIDE + 70] + struct.pack("<I", 512) + b[SIDE + 74 : SIDE + 74 + 1024],
    "no plain bits": lambda b: b[: SIDE + 74 + 2 * struct.unpack("<I", b[SIDE + 70 : SIDE + 74])[0]],
    "a step of zero": lambda b: b[: SIDE + 66] + bytes(4) + b[SIDE + 70 :],
    "a step of NaN": lambda b: b[: SIDE + 66] + struct.pack("<f", float("nan")) + b[SIDE + 70 :],
    "random bytes": lambda b: b[: SIDE + 74 + 1024] + np.random.default_rng(0).bytes(len(b)),
    "nothing": lambda b: b"",
    "half of the numbers": lambda b: b[: SIDE + 35],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_block_gives_a_clear_error_and_takes_no_memory(tmp_path, lie):
    state = make_state(rank=2, rank_scales=False)
    state.density_planes = [100 * a for a in state.density_planes]
    path = model_file.write(rounded(state), tmp_path / "a.slim")
    with_block(path, LIES[lie])
    assert_lying_block(path)


NUMBERS = 2 * 9 * 27 + 4 * 56
"""bytes of basis rows and row of scales in a block of version 3"""
LIES_3 = {
    "a bomb": lambda b: b[: NUMBERS + 4 * 24] + bz2.compress(bytes(100_000_000)),
    "too few numbers": lambda b: b[: NUMBERS + 4 * 24] + bz2.compress(bytes(10)),
    "no stream": lambda b: b[: NUMBERS + 4 * 24] + b"not compressed at all",
    "an unfinished stream": lambda b: b[:-30],
    "a step of zero": lambda b: b[:NUMBERS] + bytes(4) + b[NUMBERS + 4 :],
    "a step of NaN": lambda b: b[:NUMBERS] + struct.pack("<f", float("nan")) + b[NUMBERS + 4 :],
    "nothing": lambda b: b"",
    "half a basis": lambda b: b[:100],
}


@pytest.mark.parametrize("lie", LIES_3)
def test_a_lying_block_of_version_3_gives_a_clear_error_and_takes_no_memory(tmp_path, lie):
    path = tmp_path / "a.slim"
    path.write_bytes((OLD / "v3-compact.slim").read_bytes())
    with_block(path, LIES_3[lie])
    assert_lying_block(path)


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("side", [1300, 2500, 60_000])
def test_a_small_file_that_claims_a_large_grid_is_refused_before_memory_is_taken(tmp_path, version, side):
    path = tmp_path / "a.slim"
    model_file.write(rounded(make_state(rank=2, occupancy=None)), path)
    if version < 5:
        path.write_bytes((OLD / f"v{version}-compact.slim").read_bytes())
    path.write_bytes(with_header(path.read_bytes(), lambda h: h.update(grid=[side] * 3)))
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"a\.slim is damaged: rank 1 cannot be unpacked: a block of"):
        model_file.read(path)
    with pytest.raises(ModelFileError, match=r"a\.slim is damaged"):
        model_file.read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "lie",
    [
        lambda h: h["occupancy"].update(shape=[600] * 3),
        lambda h: h["decoder"].update(w2=[60_000, 60_000]),
        lambda h: h.update(shared_bytes=2**70),
        lambda h: h.update(shared_bytes=-1),
        lambda h: h.update(shared_bytes=None),
    ],
)
def test_a_lying_header_of_a_compact_file_takes_no_memory(tmp_path, lie):
    path = model_file.write(rounded(make_state()), tmp_path / "a.slim")
    path.write_bytes(with_header(path.read_bytes(), lie))
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"a\.slim has a header that makes no sense"):
        model_file.read(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_header_that_inflates_without_end_is_stopped(tmp_path):
    path = model_file.write(rounded(make_state()), tmp_path / "a.slim")
    bomb = zlib.compress(bytes(100_000_000), 9)
    path.write_bytes(path.read_bytes()[:12] + struct.pack("<II", len(bomb), zlib.crc32(bomb)) + bomb)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="its header cannot be unpacked"):
        model_file.read(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_file_of_nothing_is_filled_up_so_that_it_can_be_read(tmp_path):
    state = make_state(rank=1, grid=(1000, 1000, 4), rank_scales=False, occupancy=None)
    for arrays in (state.density_planes, state.appearance_planes):
        for array in arrays:
            array[...] = 0
    path = model_file.write(rounded(state), tmp_path / "a.slim")
    assert path.stat().st_size > 4 * 1000**2 / 512
    assert not model_file.read(path).appearance_planes[0].any()


def test_precision_and_version_must_agree(tmp_path):
    for precision, claim in (("compact", "float16"), ("float16", "compact")):
        path = model_file.write(model_file.convert(make_state(), precision), tmp_path / "a.slim")
        path.write_bytes(with_header(path.read_bytes(), lambda h, claim=claim: h.update(dtype=claim)))
        with pytest.raises(ModelFileError, match=f"precision '{claim}' in a file of version"):
            model_file.read(path)


def test_what_fits_is_rounded_before_it_is_cut(tmp_path):
    state = make_state(rank=4, grid=(40, 40, 40), occupancy=None)
    state.basis = 0.05 * state.basis
    every = {r: model_file.size_of(rounded(state, r)) for r in ROUNDINGS}
    assert sorted(every.values(), reverse=True) == list(every.values())
    for rounding, size in every.items():
        fitting = model_file.fit(state, size / 1e6, "compact")
        assert fitting.rank == 4 and fitting.metadata["rounding"] == rounding
    coarsest = ROUNDINGS[-1]
    cut = model_file.fit(state, (every[coarsest] - 1) / 1e6, "compact")
    assert cut.rank == 3 and cut.metadata["rounding"] == coarsest
    assert model_file.fit(state, every[0.2] / 1e6, "compact", 0.1).rank < 4
    small = rounded(state, 0.3)
    assert model_file.fit(small, 1e3) is small
    with pytest.raises(ConfigError, match="no rank fits"):
        model_file.fit(state, 1e-6, "compact")
    assert model_file.fit(state, model_file.sizes(state)[1] / 1e6).rank == 2


@pytest.mark.slow
def test_the_app_measures_every_rounding(trained, tmp_path):
    field, _ = trained
    model = field.slim(2).save(tmp_path / "model.slim")
    app = Path(__file__).parents[1] / "apps" / "compact_files.py"
    command = [sys.executable, str(app), str(model)]
    done = subprocess.run([*command, "", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    table = (tmp_path / "model-compact-files.md").read_text()
    assert table.count("\n") == 3 + len(ROUNDINGS) and (tmp_path / "model-compact-files.png").stat().st_size > 5000
    for bad in ("0", "few"):
        done = subprocess.run([*command, str(tmp_path), bad], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "expected a whole number" in done.stderr


def test_impossible_wishes_are_refused():
    state = make_state()
    for rounding in (0, -1, float("nan"), 11):
        with pytest.raises(ConfigError, match="above 0 and at most 10"):
            model_file.convert(state, "compact", rounding)
    with pytest.raises(ConfigError, match="rounding is for files of precision compact, not float16"):
        model_file.convert(state, rounding=0.1)
    with pytest.raises(ConfigError, match="unknown precision 'int8'; known: float16, float32, compact"):
        model_file.convert(state, "int8")
    for change in (
        lambda s: s.appearance_planes[1].__setitem__((0, 0, 0), np.inf),
        lambda s: s.basis.__setitem__((0, 0, 0), np.nan),
    ):
        state = make_state()
        change(state)
        with pytest.raises(ModelFileError, match="not finite"):
            model_file.convert(state, "compact")
    state = make_state()
    state.grid = (6, 4, 6)
    with pytest.raises(ModelFileError, match="density of mode 0 has shape"):
        model_file.convert(state, "compact")
