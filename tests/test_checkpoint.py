"""Checkpoints: exact round trips, truncation, damage, versions."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tslim.errors import ModelFileError, RunFolderError
from tslim.training import checkpoint


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a
    )


def small_state():
    arrays = {"adam/m": np.arange(6, dtype=np.float32).reshape(2, 3), "rank": np.array(3)}
    return arrays, {"step": 7, "schedule": {"last": 0.25}}


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.dictionaries(
        st.text(max_size=5),
        st_numpy.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint32, np.bool_]),
            st_numpy.array_shapes(min_dims=0, max_side=4) | st.just((0, 3)),
        ),
        max_size=4,
    ),
    plain=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_subnormal=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
)
def test_everything_comes_back_bit_for_bit(tmp_path, arrays, plain):
    path = checkpoint.save(tmp_path / "c.npz", arrays, {"plain": plain})
    back, record = checkpoint.load(path)
    assert same(back, arrays)
    assert record == {"plain": plain}


def test_the_state_of_a_random_generator_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(5)
    rng.random(3)
    path = checkpoint.save(tmp_path / "c.npz", {}, {"rng": rng.bit_generator.state})
    again = np.random.default_rng()
    again.bit_generator.state = checkpoint.load(path)[1]["rng"]
    assert again.random() == rng.random()


def test_transposed_and_read_only_arrays_are_saved_as_they_look(tmp_path):
    a = np.arange(12.0).reshape(3, 4).T
    a.setflags(write=False)
    back = checkpoint.load(checkpoint.save(tmp_path / "c.npz", {"a": a}, {}))[0]["a"]
    np.testing.assert_array_equal(back, a)
    back[0] = 1


def test_a_truncated_checkpoint_names_itself_at_every_length(tmp_path):
    whole = checkpoint.save(tmp_path / "a.npz", *small_state()).read_bytes()
    cut = tmp_path / "cut.npz"
    for n in range(len(whole)):
        cut.write_bytes(whole[:n])
        with pytest.raises(ModelFileError, match=r"cut\.npz"):
            checkpoint.load(cut)


def test_a_flipped_byte_is_noticed_or_changes_nothing(tmp_path):
    arrays, plain = small_state()
    whole = checkpoint.save(tmp_path / "a.npz", arrays, plain).read_bytes()
    bad = tmp_path / "bad.npz"
    noticed = 0
    for n in range(len(whole)):
        for bit in (0x01, 0x80):
            bad.write_bytes(whole[:n] + bytes([whole[n] ^ bit]) + whole[n + 1 :])
            try:
                back, record = checkpoint.load(bad)
            except ModelFileError as error:
                assert "bad.npz" in str(error)
                noticed += 1
            else:
                assert same(back, arrays) and record == plain
    assert noticed > len(whole)


def test_other_versions_other_files_and_missing_ones_are_told_apart(tmp_path):
    path = tmp_path / "c.npz"
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ModelFileError, match="not a tslim checkpoint"):
        checkpoint.load(path)
    for record, message in (
        ({"kind": "tslim checkpoint", "version": 2}, "version 2; this tslim continues version 1"),
        ({"kind": "other"}, "not a tslim checkpoint"),
        ([], "not a tslim checkpoint"),
        ({"kind": "tslim checkpoint", "version": 1, "arrays": ["a"], "plain": {}}, "damaged"),
        ({"kind": "tslim checkpoint", "version": 1}, "damaged"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("record.json", json.dumps(record))
        with pytest.raises(ModelFileError, match=message):
            checkpoint.load(path)
    with pytest.raises(ModelFileError, match="cannot read checkpoint"):
        checkpoint.load(tmp_path)


def write_archive(path, member: bytes) -> None:
    """A checkpoint whose one array is these bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "record.json", json.dumps({"kind": "tslim checkpoint", "version": 1, "arrays": ["a"], "plain": {}})
        )
        archive.writestr("0.npy", member)


def test_pickled_objects_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ModelFileError, match="Python objects"):
        checkpoint.save(tmp_path / "c.npz", {"a": np.array([{}], dtype=object)}, {})
    with pytest.raises(ModelFileError, match="not plain data"):
        checkpoint.save(tmp_path / "c.npz", {}, {"a": object()})
    assert list(tmp_path.iterdir()) == []
    member = io.BytesIO()
    np.lib.format.write_array(member, np.array([{}], dtype=object), allow_pickle=True)
    write_archive(tmp_path / "c.npz", member.getvalue())
    with pytest.raises(ModelFileError, match="holds object"):
        checkpoint.load(tmp_path / "c.npz")


def test_an_array_that_claims_to_be_enormous_is_refused(tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    write_archive(tmp_path / "c.npz", member.getvalue())
    with pytest.raises(ModelFileError, match="damaged"):
        checkpoint.load(tmp_path / "c.npz")


@pytest.mark.parametrize("header", ["{'descr': '<f4', 'fortran_order': False, 'shape': (6L,), }", " " * 20_000])
def test_what_numpy_has_to_say_of_an_array_is_one_line_and_no_warning(tmp_path, recwarn, header):
    """A shape as Python 2 wrote it; a header that numpy thinks too long to be safe."""
    path = checkpoint.save(tmp_path / "c.npz", *small_state())
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    text = header.encode() + b"\n"
    parts["0.npy"] = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + parts["0.npy"][-24:]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(ModelFileError, match="damaged") as refused:
        checkpoint.load(path)
    assert "\n" not in str(refused.value) and not recwarn


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    arrays, plain = small_state()
    path = checkpoint.save(tmp_path / "c.npz", arrays, plain)
    with pytest.raises(ModelFileError):
        checkpoint.save(path, {**arrays, "bad": np.array([{}], dtype=object)}, plain)
    assert same(checkpoint.load(path)[0], arrays)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        checkpoint.save(tmp_path / "file" / "c.npz", arrays, plain)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "file"]
