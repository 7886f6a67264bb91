"""The model file: round trips, cutting, damage, lies."""

import dataclasses
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tslim.config import FieldConfig
from tslim.errors import ConfigError, ModelFileError, RunFolderError
from tslim.model import model_file
from tslim.model.header import CODED_VERSIONS
from tslim.model.model_file import FieldState
from tslim.model.stored import as_stored
from tslim.scene.domain import Domain

PRELUDE = 20


def make_state(rank=3, grid=(5, 4, 6), *, rank_scales=True, occupancy=(7, 6, 5), seed=0, metadata=None) -> FieldState:
    """Random values that half precision holds exactly, so that equality can be asked for."""
    rng = np.random.default_rng(seed)

    def values(*shape):
        return rng.normal(size=shape).astype(np.float16).astype(np.float32)

    (nx, ny, nz), three = grid, 3 * rank
    return FieldState(
        config=FieldConfig(max_rank=rank, decoder="sh", density_shift=-8.0, rank_scales=rank_scales),
        domain=Domain(np.array([[-1.5, -1, -0.5], [1.5, 1, 2]], np.float32), 2.0, 6.0, background=(1.0, 0.5, 0.25)),
        grid=grid,
        density_planes=[values(rank, ny, nx), values(rank, nz, nx), values(rank, nz, ny)],
        density_lines=[values(rank, nz), values(rank, ny), values(rank, nx)],
        appearance_planes=[values(three, ny, nx), values(three, nz, nx), values(three, nz, ny)],
        appearance_lines=[values(three, nz), values(three, ny), values(three, nx)],
        basis=values(3, three, 27),
        rank_scales=rng.normal(size=(rank, 56)).astype(np.float32) if rank_scales else None,
        decoder={"weight": values(4, 3), "bias": values(3), "scale": values()},
        occupancy=None if occupancy is None else rng.random(occupancy) < 0.3,
        occupancy_box=None if occupancy is None else np.array([[-1, -1, -1], [1, 1, 1]], np.float32),
        metadata={"scene": "lego", "steps": 12} if metadata is None else metadata,
    )


def arrays_of(state: FieldState) -> dict[str, np.ndarray]:
    named = {"box": state.box, "basis": state.basis}
    for name in ("density_planes", "density_lines", "appearance_planes", "appearance_lines"):
        named |= {f"{name}{m}": a for m, a in enumerate(getattr(state, name))}
    named |= {f"decoder.{name}": a for name, a in state.decoder.items()}
    assert state.separate_ranks is None or max(state.separate_ranks) == state.rank
    optional = {
        "rank_scales": state.rank_scales,
        "occupancy": state.occupancy,
        "occupancy_box": state.occupancy_box,
        "steps": state.steps,
        "pulls": state.pulls,
    }
    return named | {name: a for name, a in optional.items() if a is not None}


def assert_same(a: FieldState, b: FieldState) -> None:
    a, b = as_stored(a), as_stored(b)
    x, y = arrays_of(a), arrays_of(b)
    assert list(x) == list(y)
    for name in x:
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)
        assert x[name].dtype == y[name].dtype, name
    for name in ("config", "near", "far", "space", "background", "metadata", "separate_ranks", "precision"):
        assert getattr(a, name) == getattr(b, name), name
    assert tuple(a.grid) == tuple(b.grid)


def with_header(data: bytes, change) -> bytes:
    """The file with its header changed by a function and a checksum that fits."""
    version, length = struct.unpack("<II", data[8:16])
    text = data[PRELUDE : PRELUDE + length]
    header = json.loads(zlib.decompress(text) if version in CODED_VERSIONS else text)
    change(header)
    text = json.dumps(header).encode()
    text = zlib.compress(text) if version in CODED_VERSIONS else text
    return data[:12] + struct.pack("<II", len(text), zlib.crc32(text)) + text + data[PRELUDE + length :]


def test_a_model_comes_back_from_its_file_bit_for_bit(tmp_path):
    state = make_state()
    path = model_file.write(state, tmp_path / "new" / "folder" / "a.slim")
    assert_same(model_file.read(path), state)
    assert [p.name for p in path.parent.iterdir()] == ["a.slim"]


def test_what_was_read_and_is_written_again_is_the_same_file(tmp_path):
    state = make_state()
    box = np.array([[-0.1] * 3, [0.3] * 3])
    state.domain = dataclasses.replace(state.domain, background=(0.1, 0.2, 0.7), box=box)
    first = model_file.write(state, tmp_path / "first.slim")
    again = model_file.write(model_file.read(first), tmp_path / "again.slim")
    assert first.read_bytes() == again.read_bytes()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rank=st.integers(1, 5),
    grid=st.tuples(*[st.integers(2, 9)] * 3),
    rank_scales=st.booleans(),
    occupancy=st.none() | st.tuples(*[st.integers(1, 11)] * 3),
    precision=st.sampled_from([("float16", None), ("float32", None)])
    | st.tuples(st.just("compact"), st.floats(0.001, 10)),
    metadata=st.dictionaries(
        st.text(), st.none() | st.integers() | st.floats(allow_nan=False, allow_subnormal=False) | st.text()
    ),
)
def test_any_model_round_trips_and_has_the_predicted_size_at_every_rank(
    tmp_path, rank, grid, rank_scales, occupancy, precision, metadata
):
    state = make_state(rank, grid, rank_scales=rank_scales, occupancy=occupancy, metadata=metadata)
    state = model_file.convert(state, *precision)
    path = model_file.write(state, tmp_path / "a.slim")
    back = model_file.read(path)
    assert_same(back, state)
    assert_same(model_file.convert(back), back)
    whole = path.read_bytes()
    header = model_file.read_header(path)
    assert header.n_bytes == len(whole) and header.spare_bytes == 0 and header.precision == precision[0]
    assert len(whole) == model_file.size_of(state)
    for r in range(1, rank + 1):
        for source in (state, back):
            slimmed = model_file.write(source.slim(r), tmp_path / "b.slim").read_bytes()
            assert slimmed == whole[: header.bytes_at(r)]
        assert len(slimmed) == model_file.sizes(state)[r - 1] == header.bytes_at(r)
        assert_same(model_file.read(path, rank=r), state.slim(r))


def test_single_precision_keeps_every_bit_and_half_rounds_to_nearest_even(tmp_path):
    state = make_state()
    state.density_planes[0][0, 0, :2] = 1 + 2**-11, 1 + 3 * 2**-11
    exact = model_file.convert(state, "float32")
    single = model_file.read(model_file.write(exact, tmp_path / "a.slim"))
    assert_same(single, exact)
    half = model_file.read(model_file.write(state, tmp_path / "b.slim"))
    assert half.density_planes[0][0, 0, :2].tolist() == [1, 1 + 2**-9]
    again = model_file.write(half, tmp_path / "c.slim")
    assert again.read_bytes() == (tmp_path / "b.slim").read_bytes()


def test_a_file_cut_at_any_byte_is_a_smaller_model_or_a_clear_error(tmp_path):
    state = make_state(rank=3, grid=(3, 2, 4), occupancy=(3, 3, 3))
    whole = model_file.write(state, tmp_path / "a.slim").read_bytes()
    header = model_file.read_header(tmp_path / "a.slim")
    cut = tmp_path / "cut.slim"
    for n in range(len(whole)):
        cut.write_bytes(whole[:n])
        rank = sum(end <= n for end in header.ends)
        if rank >= 1:
            assert_same(model_file.read(cut), state.slim(rank))
            assert model_file.read_header(cut).spare_bytes == n - header.bytes_at(rank)
        else:
            with pytest.raises(ModelFileError, match=r"cut\.slim is (cut short|not a tslim model file)"):
                model_file.read(cut)


def test_every_flipped_byte_is_noticed(tmp_path):
    state = make_state(rank=2, grid=(2, 3, 2), occupancy=(3, 3, 3))
    whole = model_file.write(state, tmp_path / "a.slim").read_bytes()
    bad = tmp_path / "bad.slim"
    for n in range(len(whole)):
        bad.write_bytes(whole[:n] + bytes([whole[n] ^ 0x10]) + whole[n + 1 :])
        with pytest.raises(ModelFileError, match=r"bad\.slim"):
            model_file.read(bad)


def test_ranks_before_a_damaged_one_can_still_be_read(tmp_path):
    state = make_state(rank=4)
    path = model_file.write(state, tmp_path / "a.slim")
    data = bytearray(path.read_bytes())
    data[model_file.read_header(path).bytes_at(2) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="rank 3 does not match its checksum; ranks 1 to 2 are intact"):
        model_file.read(path)
    assert_same(model_file.read(path, rank=2), state.slim(2))


def test_fewer_ranks_can_be_read_than_the_file_holds_but_not_more(tmp_path):
    state = make_state(rank=3)
    path = model_file.write(state, tmp_path / "a.slim")
    assert_same(model_file.read(path, rank=1), state.slim(1))
    for rank in (0, 4):
        with pytest.raises(ConfigError, match="ranks 1 to 3"):
            model_file.read(path, rank=rank)
    with pytest.raises(ConfigError, match="ranks 1 to 3"):
        state.slim(4)


LIES = {
    "a grid far larger than the file": lambda h: h.update(grid=[60000, 60000, 60000]),
    "a decoder far larger than the file": lambda h: h["decoder"].update(weight=[60000] * 8),
    "an occupancy of a peta-cell": lambda h: h["occupancy"].update(shape=[60000] * 3),
    "an occupancy of more bytes than there are": lambda h: h["occupancy"].update(bytes=2**27),
    "an occupancy of other cells": lambda h: h["occupancy"].update(shape=[600, 600, 600]),
    "a negative side": lambda h: h.update(grid=[-3, 4, 5]),
    "a side that is no number": lambda h: h.update(grid=["5", 4, 5]),
    "a side that is true": lambda h: h.update(grid=[True, 4, 5]),
    "one texel": lambda h: h.update(grid=[1, 4, 5]),
    "a nest of lists": lambda h: h.update(metadata=[[[[]]]]),
    "no box": lambda h: h.pop("box"),
    "a box inside out": lambda h: h.update(box=[[1, 1, 1], [0, 0, 0]]),
    "a box of NaN": lambda h: h.update(box=[[float("nan")] * 3, [1, 1, 1]]),
    "far before near": lambda h: h.update(far=1),
    "an unknown precision": lambda h: h.update(dtype="float8"),
    "a precision that is a list": lambda h: h.update(dtype=[]),
    "an unknown setting": lambda h: h["config"].update(gamma=1),
    "an unknown decoder": lambda h: h["config"].update(decoder="oracle"),
    "a setting of NaN": lambda h: h["config"].update(distance_scale=float("nan")),
    "a setting of infinity": lambda h: h["config"].update(density_shift=float("inf")),
    "a decoder beyond 2^63": lambda h: h["decoder"].update(a=[60000] * 8, b=[60000] * 8),
    "a text for a number": lambda h: h["config"].update(density_shift="-10"),
    "an unknown coding": lambda h: h["occupancy"].update(coding="magic"),
    "no checksum": lambda h: h.pop("shared_crc32"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_gives_a_clear_error_and_takes_no_memory(tmp_path, lie):
    path = model_file.write(make_state(), tmp_path / "a.slim")
    path.write_bytes(with_header(path.read_bytes(), LIES[lie]))
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"a\.slim"):
        model_file.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_an_occupancy_that_inflates_without_end_is_stopped(tmp_path):
    state = make_state(occupancy=(8, 8, 8))
    state.occupancy[:] = True
    path = model_file.write(state, tmp_path / "a.slim")
    data = path.read_bytes()
    header = model_file.read_header(path)
    assert header.occupancy_coding == "deflate"
    bomb = zlib.compress(bytes(100_000_000), 9)
    n = header.fixed_bytes - header.shared_at
    shared = data[header.shared_at : header.fixed_bytes]
    decoder = shared[: 2 * (4 * 3 + 3 + 1)]
    body = decoder + bomb

    def lie(h):
        h["occupancy"]["bytes"] = len(bomb)
        h["shared_crc32"] = zlib.crc32(body)

    changed = with_header(data[: header.shared_at] + body + data[header.shared_at + n :], lie)
    path.write_bytes(changed)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="occupancy"):
        model_file.read(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_other_files_and_versions_are_named(tmp_path):
    path = tmp_path / "a.slim"
    for other in (b"", b"PK\x03\x04", b"\x93TSLIM", b"hello, this is a text file, not a model"):
        path.write_bytes(other)
        with pytest.raises(
            ModelFileError,
            match=r"a\.slim is (not a tslim model file|cut short|no checkpoint of TensoRF: it is damaged)",
        ):
            model_file.read(path)
    data = model_file.write(make_state(), path).read_bytes()
    path.write_bytes(data[:8] + struct.pack("<I", 6) + data[12:])
    with pytest.raises(ModelFileError, match="version 6; this tslim reads versions 1 to 5"):
        model_file.read_header(path)
    path.write_bytes(data[:12] + struct.pack("<I", 2**32 - 1) + data[16:])
    with pytest.raises(ModelFileError, match="4294967295 bytes"):
        model_file.read(path)
    with pytest.raises(FileNotFoundError, match="no such model file"):
        model_file.read(tmp_path / "none.slim")
    with pytest.raises(ModelFileError, match="cannot read"):
        model_file.read(tmp_path)


def test_what_could_not_be_read_again_is_not_written_and_the_old_file_stays(tmp_path):
    path = model_file.write(make_state(), tmp_path / "a.slim")
    before = path.read_bytes()
    broken = {
        "not finite": lambda s: s.density_planes[1].__setitem__((0, 0, 0), np.nan),
        "too large for float16": lambda s: s.appearance_lines[2].__setitem__((0, 0), 1e5),
        "basis has shape": lambda s: setattr(s, "basis", s.basis[:, :2]),
        "density of mode 0 has shape": lambda s: setattr(s, "grid", (6, 4, 6)),
        "rank_scales has shape": lambda s: setattr(s, "rank_scales", s.rank_scales[:, :50]),
        "no volume": lambda s: setattr(s, "domain", s.domain.with_box(s.box[::-1])),
        "near": lambda s: setattr(s, "domain", dataclasses.replace(s.domain, far=0.5)),
        "not plain data": lambda s: setattr(s, "metadata", {"f": object()}),
        "metadata takes": lambda s: setattr(s, "metadata", {"f": "x" * 5_000_000}),
        "occupancy has shape": lambda s: setattr(s, "occupancy", s.occupancy[0]),
    }
    for message, change in broken.items():
        state = make_state(seed=1)
        change(state)
        with pytest.raises(ModelFileError, match=message):
            model_file.write(state, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.slim"]
    state = make_state()
    state.density_lines[0][0, 0] = 1e5
    state = model_file.convert(state, "float32")
    assert_same(model_file.read(model_file.write(state, path)), state)


def test_a_folder_that_cannot_be_made_gives_a_run_folder_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot write"):
        model_file.write(make_state(), tmp_path / "file" / "a.slim")
    with pytest.raises(RunFolderError, match="it is a folder"):
        model_file.write(make_state(), tmp_path)


def test_the_highest_rank_that_fits_is_chosen_to_the_byte():
    state = make_state(rank=5)
    for rank in range(1, 6):
        size = model_file.sizes(state)[rank - 1]
        assert model_file.rank_that_fits(state, size / 1e6) == rank
        assert model_file.rank_that_fits(state, (size + 1) / 1e6) == rank
        if rank > 1:
            assert model_file.rank_that_fits(state, (size - 1) / 1e6) == rank - 1
    assert model_file.rank_that_fits(state, float("inf")) == 5
    for too_little in ((model_file.sizes(state)[0] - 1) / 1e6, 0, -1, float("nan")):
        with pytest.raises(ConfigError, match="no rank fits"):
            model_file.rank_that_fits(state, too_little)


def test_slimming_shares_memory_and_a_paper_sized_model_has_the_paper_s_size():
    state = make_state(rank=4)
    slimmed = state.slim(2)
    assert slimmed.rank == 2 and np.shares_memory(slimmed.basis, state.basis)
    assert dataclasses.replace(slimmed.config, max_rank=4) == state.config
    # 12 (300*300 + 300) half-precision values a rank, 9*27 of the basis, the checksum: 2.17 MB
    big = make_state(rank=1, grid=(300, 300, 300), rank_scales=False, occupancy=None, metadata={})
    assert 2 * (12 * 90_300 + 9 * 27) + 4 == pytest.approx(model_file.sizes(big)[0], abs=700)


def test_numpy_values_and_paths_in_metadata_become_plain_data(tmp_path):
    metadata = {"n": np.int64(3), "x": np.float32(0.5), "a": np.arange(2), "p": tmp_path}
    back = model_file.read(model_file.write(make_state(metadata=metadata), tmp_path / "a.slim"))
    assert back.metadata == {"n": 3, "x": 0.5, "a": [0, 1], "p": str(tmp_path)}


SEPARATE = [(5, 2), (2, 5), (5, 4), (1, 4)]


@pytest.mark.parametrize("separate_ranks", SEPARATE)
@pytest.mark.parametrize("rank_scales", [True, False])
def test_separate_ranks_come_back_from_a_file_that_holds_nothing_else(tmp_path, separate_ranks, rank_scales):
    state = make_state(rank=5, rank_scales=rank_scales)
    separate = state.separate(*separate_ranks)
    path = model_file.write(separate, tmp_path / "a.slim")
    assert_same(model_file.read(path), separate)
    header = model_file.read_header(path)
    assert header.separate_ranks == separate_ranks and header.spare_bytes == 0 and header.rank == max(separate_ranks)
    values = 3 * sum(a[0].size for a in (*state.density_planes, *state.density_lines))
    missing = (
        2 * (values + 9 * 27) + 4 * 54 * rank_scales
        if separate_ranks[0] > separate_ranks[1]
        else 2 * values // 3 + 4 * 2 * rank_scales
    )
    # Beside what is left out there are some twenty bytes more of header.
    whole = model_file.sizes(state)[max(separate_ranks) - 1]
    assert 0 < model_file.size_of(separate) - (whole - missing * abs(separate_ranks[0] - separate_ranks[1])) < 60


@pytest.mark.parametrize("separate_ranks", SEPARATE)
def test_separate_ranks_slim_on_and_have_the_predicted_sizes(tmp_path, separate_ranks):
    separate = make_state(rank=5).separate(*separate_ranks)
    whole = model_file.write(separate, tmp_path / "a.slim").read_bytes()
    header = model_file.read_header(tmp_path / "a.slim")
    for rank in range(1, max(separate_ranks) + 1):
        slimmed = model_file.write(separate.slim(rank), tmp_path / "b.slim").read_bytes()
        assert len(slimmed) == model_file.sizes(separate)[rank - 1]
        assert_same(model_file.read(tmp_path / "b.slim"), separate.slim(rank))
        assert_same(model_file.read(tmp_path / "a.slim", rank=rank), separate.slim(rank))
        if rank > min(separate_ranks):
            assert slimmed == whole[: header.bytes_at(rank)]
        (tmp_path / "cut.slim").write_bytes(whole[: header.bytes_at(rank) + 3])
        assert_same(model_file.read(tmp_path / "cut.slim"), separate.slim(rank))


@pytest.mark.parametrize("separate_ranks", SEPARATE)
def test_separate_ranks_have_the_scale_and_shift_of_their_own_rank(separate_ranks):
    state = make_state(rank=5)
    separate = state.separate(*separate_ranks)
    low, high = min(separate_ranks), max(separate_ranks)
    assert (separate.rank_scales[high - 1, :2] == state.rank_scales[separate_ranks[0] - 1, :2]).all()
    assert (separate.rank_scales[high - 1, 2:] == state.rank_scales[separate_ranks[1] - 1, 2:]).all()
    assert (separate.rank_scales[:low] == state.rank_scales[:low]).all()
    density, appearance = separate.density_planes[0], separate.appearance_planes[0]
    assert density[: separate_ranks[0]].any(axis=(1, 2)).all() and not density[separate_ranks[0] :].any()
    assert appearance[: 3 * separate_ranks[1]].any(axis=(1, 2)).all() and not appearance[3 * separate_ranks[1] :].any()
    assert not separate.basis[:, 3 * separate_ranks[1] :].any() and separate.basis[:, : 3 * separate_ranks[1]].any()
    assert_same(state, make_state(rank=5))


def test_separate_ranks_that_are_equal_are_plain_slimming_and_no_more_than_there_is_can_be_had():
    state = make_state(rank=5)
    assert_same(state.separate(3, 3), state.slim(3))
    with pytest.raises(ConfigError, match="the density has ranks 1 to 5"):
        state.separate(6, 2)
    with pytest.raises(ConfigError, match="the appearance has ranks 1 to 2"):
        state.separate(5, 2).separate(5, 3)
    assert_same(state.separate(5, 2).separate(4, 1), state.separate(4, 1))


@pytest.mark.parametrize(
    "lie", [{"kind": "colour", "after": 2}, {"kind": "density", "after": 0}, {"kind": "density", "after": "2"}, 7]
)
def test_lies_about_separate_ranks_are_refused(tmp_path, lie):
    path = model_file.write(make_state(rank=5).separate(5, 2), tmp_path / "a.slim")
    path.write_bytes(with_header(path.read_bytes(), lambda h: h.update(tail=lie)))
    with pytest.raises(ModelFileError, match="makes no sense"):
        model_file.read(path)
