"""Model files of every earlier version open, and hold what they held when they were written."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.test_model_file import arrays_of, assert_same
from tslim.config import RENAMED
from tslim.field.field import Field
from tslim.model import model_file
from tslim.model.header import COMPACT_VERSION

FILES = sorted((Path(__file__).parent / "data" / "model_files").glob("*.slim"))


def listed(value):
    return json.loads(json.dumps(value))


def test_every_version_before_this_one_is_there():
    assert {p.name[:2] for p in FILES} >= {"v1", "v2", "v3", "v4"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_old_file_holds_what_it_held(path):
    state = model_file.read(path)
    expected = dict(np.load(path.with_suffix(".npz"), allow_pickle=False))
    plain = json.loads(expected.pop("plain").tobytes())
    if "affine" in expected:
        expected["rank_scales"] = expected.pop("affine")
    found = arrays_of(state)
    assert not found.pop("pulls", np.zeros(1)).any()  # whole steps, which the first compact files had, are from 0
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    config = {RENAMED.get(name, name): value for name, value in plain.pop("config").items()}
    assert config.items() <= listed(dataclasses.asdict(state.config)).items()
    plain["separate_ranks"] = plain.pop("kept")
    for name, value in plain.items():
        assert listed(getattr(state, name)) == value, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_old_file_is_the_smaller_model_where_it_is_cut(path, tmp_path):
    whole, header = path.read_bytes(), model_file.read_header(path)
    state = model_file.read(path)
    for rank in range(1, header.rank + 1):
        (tmp_path / "cut.slim").write_bytes(whole[: header.bytes_at(rank) + 1])
        cut = arrays_of(model_file.read(tmp_path / "cut.slim"))
        for name, values in arrays_of(state.slim(rank)).items():
            np.testing.assert_array_equal(cut[name], values, err_msg=name)


@pytest.mark.parametrize("path", [p for p in FILES if p.stem[1] in "34"], ids=lambda p: p.stem)
def test_an_old_compact_file_is_written_again_without_loss(path, tmp_path):
    state = model_file.read(path)
    again = model_file.write(state, tmp_path / "again.slim")
    assert model_file.read_header(again).version == COMPACT_VERSION
    if path.stem.startswith("v3"):  # whose decoder was in half precision
        state.decoder = model_file.read(again).decoder
    assert_same(model_file.read(again), state)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_old_file_becomes_a_field(cpu, path):
    field = Field.from_state(model_file.read(path))
    assert np.isfinite(field.density_at(np.zeros((1, 3)))).all()
