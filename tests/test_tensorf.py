"""Checkpoints of TensoRF and SlimmeRF: read, written, rendered as a reading of them in plain torch renders them."""

import struct
import zipfile

import numpy as np
import pytest
import torch

import tslim
from tests import tensorf_twin
from tests.device_field import random_state
from tslim.cli import main
from tslim.config import FieldConfig
from tslim.errors import ConfigError, ModelFileError
from tslim.field.field import Field
from tslim.model import model_file, ordering, tensorf, tensorf_write

KINDS = {
    "vm": {},
    "tensors_instead_of_numpy": {"numpy_bits": False},
    "relu": {"fea2denseAct": "relu"},
    "mlp_without_encoded_features": {"shadingMode": "MLP", "view_pe": 3},
    "narrow": {"app_dim": 20, "featureC": 40},
    "modes_that_differ": {"density_n_comp": [6, 2, 2], "appearance_n_comp": [18, 5, 5]},
    "more_density": {"density_n_comp": [6, 5, 6], "appearance_n_comp": [9, 9, 9]},
    "cp": {"cp": True, "density_n_comp": [7], "appearance_n_comp": [20], "density_shift": -3.0},
    "slimmerf": {"masked": (2, 6)},
}
SMALL = {"gridSize": [4, 4, 4], "density_n_comp": [1, 1, 1], "appearance_n_comp": [3, 3, 3]}
N = 400


def rendered(field):
    field.metadata.setdefault("march", {})["early_stop"] = 0.0
    return tslim.Renderer(field).render_rays(*tensorf_twin.rays(N)).rgb


def assert_alike(ours, theirs):
    """But for a sample here and there that rounding puts on the other side of a cell's border or of a threshold."""
    wrong = np.abs(ours - theirs).max(1)
    assert theirs.std() > 0.05, "there is something to see"
    assert np.quantile(wrong, 0.98) < 1e-5 and wrong.max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_renders_as_a_torch_reading_of_it_does(cpu, tmp_path, kind):
    path = tensorf_twin.write(tmp_path / "x.th", **KINDS[kind])
    assert_alike(rendered(tslim.load(path)), tensorf_twin.render(path, *tensorf_twin.rays(N)))


def test_components_are_ranks(tmp_path):
    def read(kind):
        return tensorf.read(tensorf_twin.write(tmp_path / "x.th", **KINDS[kind]))

    assert read("vm").rank == 4 and read("vm").separate_ranks is None
    assert read("more_density").separate_ranks == (6, 3)
    assert read("cp").rank == 3, "7 and 20 components in three modes"
    assert read("slimmerf").rank == 2, "what the masks switch off is left out"
    assert ordering.is_unordered(read("vm")) and not ordering.is_unordered(read("slimmerf"))


@pytest.mark.parametrize("rank_scales", [False, True])
def test_a_field_becomes_a_checkpoint_that_torch_renders_alike(cpu, tmp_path, rank_scales):
    config = FieldConfig(density_shift=-0.5, distance_scale=2.0)
    state = random_state(np.random.default_rng(1), max_rank=5, rank_scales=rank_scales, config=config)
    state.domain = state.domain.with_box(np.array(tensorf_twin.BOX))
    state.occupancy = tensorf.cells_around(np.random.default_rng(2).random((7, 9, 8)) < 0.1)
    path = tensorf_write.write(state, tmp_path / "x.th")
    theirs = tensorf_twin.render(path, *tensorf_twin.rays(N))
    assert_alike(rendered(Field.from_state(state)), theirs)
    again = tensorf.read(path)
    assert (again.occupancy == state.occupancy).all()
    assert_alike(rendered(Field.from_state(again)), theirs)


def test_reading_and_writing_gives_the_same_checkpoint(tmp_path):
    first = tensorf_twin.write(tmp_path / "a.th", **KINDS["more_density"] | {"density_n_comp": [6, 6, 6]})
    second = tensorf_write.write(tensorf.read(first), tmp_path / "b.th")
    before, after = torch.load(first, weights_only=False), torch.load(second)
    assert before["state_dict"].keys() == after["state_dict"].keys()
    for name, array in before["state_dict"].items():
        assert torch.equal(array, after["state_dict"][name]), name
    changed = {"aabb", "near_far", "pos_pe"}
    assert all(after["kwargs"][k] == v for k, v in before["kwargs"].items() if k not in changed)
    assert np.isin(before["alphaMask.mask"], 0).sum() >= np.isin(after["alphaMask.mask"].numpy(), 0).sum()


def test_cells_that_no_vertices_make_are_all_kept(tmp_path):
    state = random_state(np.random.default_rng(1), max_rank=1, rank_scales=False)
    state.occupancy = np.random.default_rng(2).random((5, 6, 7)) < 0.3
    again = tensorf.read(tensorf_write.write(state, tmp_path / "x.th"))
    assert (again.occupancy >= state.occupancy).all()


def test_slim_puts_the_ranks_of_a_checkpoint_in_order_and_says_so(tmp_path, capsys):
    path = tensorf_twin.write(tmp_path / "x.th")
    assert main(["slim", str(path), "--max-mb", "0.08", "-o", str(tmp_path / "small.slim")]) == 0
    said = capsys.readouterr().out
    assert "a checkpoint of TensoRF, 4 density and 12 appearance components" in said
    assert "ranks in order: 2 of 4 hold" in said
    small = model_file.read(tmp_path / "small.slim")
    assert small.precision == "compact" and not ordering.is_unordered(small)
    assert (tmp_path / "small.slim").stat().st_size <= 80_000


def test_commands_take_checkpoints(cpu, tmp_path, capsys):
    path = str(tensorf_twin.write(tmp_path / "x.th"))
    assert main(["info", path]) == 0
    assert "as a model file 0.12 MB" in capsys.readouterr().out
    assert main(["render", path, "--size", "24x16", "-o", str(tmp_path / "x.png")]) == 0
    assert main(["reorder", path, "-o", str(tmp_path / "r.slim")]) == 0
    assert main(["export", str(tmp_path / "r.slim"), "-o", str(tmp_path / "r.th")]) == 0
    assert_alike(rendered(tslim.load(tmp_path / "r.th")), tensorf_twin.render(tmp_path / "r.th", *tensorf_twin.rays(N)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"near_far": [0.0, 1.0]}, "trained in NDC"),
        ({"shadingMode": "SH", "view_pe": 2}, r"shadingMode is 'SH' \(its harmonics .*\): MLP_Fea and MLP can be read"),
        ({"shadingMode": "MLP_PE"}, r"'MLP_PE' \(its MLP sees where a sample is"),
        ({"shadingMode": "RGB", "app_dim": 3}, r"'RGB' \(its features are the colours"),
        ({"shadingMode": ["RGB"]}, r"shadingMode is \['RGB'\]: MLP_Fea and MLP can be read"),
        ({"fea2denseAct": "exp"}, "fea2denseAct is 'exp'"),
        ({"distance_scale": float("nan")}, "distance_scale is nan"),
        ({"step_ratio": 1e-7}, "step_ratio is 1e-07"),
        ({"aabb": torch.zeros(2, 3)}, "box .* that differ"),
    ],
)
def test_a_checkpoint_that_no_field_can_be_is_refused_in_one_line(tmp_path, changes, message):
    path = tensorf_twin.write(tmp_path / "x.th", **changes)
    with pytest.raises(ModelFileError, match=message) as refused:
        model_file.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gridSize": [60_000, 60_000, 60_000]}, "gridSize is 60000"),
        ({"gridSize": [4000, 4000, 4000]}, "density_line.0 has the shape"),
        ({"app_dim": 9}, "renderModule.mlp has the shapes"),
    ],
)
def test_a_checkpoint_whose_numbers_do_not_fit_is_refused(tmp_path, changes, message):
    path = tensorf_twin.write(tmp_path / "x.th")
    file = torch.load(path, weights_only=False)
    file["kwargs"] |= changes
    torch.save(file, path)
    with pytest.raises(ModelFileError, match=message):
        model_file.read(path)


def test_lines_that_would_become_huge_planes_are_refused(tmp_path):
    path = tensorf_twin.write(
        tmp_path / "x.th", cp=True, gridSize=[4000, 4000, 4000], density_n_comp=[30], appearance_n_comp=[90]
    )
    assert path.stat().st_size < 10e6
    with pytest.raises(ModelFileError, match="it would take 7.7 GB; 4 GB can be"):
        model_file.read(path)


class _Runs:
    def __reduce__(self):
        return (eval, ('print("this code was run")',))  # not print, in whose place Ray puts a function of its own


def test_a_pickle_with_code_is_refused_before_it_runs(tmp_path, capsys):
    torch.save({"kwargs": _Runs(), "state_dict": {}}, tmp_path / "x.th")
    with pytest.raises(ModelFileError, match="it names __builtin__.eval, .* nothing of it was run"):
        model_file.read(tmp_path / "x.th")
    assert "this code was run" not in capsys.readouterr().out


def test_numpy_makes_nothing_of_what_a_pickle_claims(tmp_path):
    huge = np.ndarray.__new__(np.ndarray, (1,), np.uint8)
    torch.save({"kwargs": {}, "state_dict": {}, "x": huge}, tmp_path / "x.th")
    _edit(
        tmp_path / "x.th",
        pickled=lambda data: data.replace(b"K\x01\x85q", b"J" + struct.pack("<i", 2**31 - 1) + b"\x85q"),
    )
    with pytest.raises(ModelFileError, match="not packed bits"):
        model_file.read(tmp_path / "x.th")


def test_a_tensor_that_claims_more_than_is_stored_is_refused(tmp_path):
    path = tensorf_twin.write(tmp_path / "x.th")
    file = torch.load(path, weights_only=False)
    file["state_dict"]["density_plane.0"] = torch.zeros(1).expand(1, 4, 30_000, 30_000)
    torch.save(file, path)
    with pytest.raises(ModelFileError, match="claims 3600000000 numbers and has fewer"):
        model_file.read(path)


def test_compressed_and_repeated_parts_are_refused(tmp_path):
    path = tensorf_twin.write(tmp_path / "x.th")
    _edit(path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match="compressed"):
        model_file.read(path)


def test_every_cut_and_every_kind_of_zip_is_refused_in_one_line(tmp_path):
    path = tensorf_twin.write(
        tmp_path / "x.th", gridSize=[4, 4, 4], density_n_comp=[1, 1, 1], appearance_n_comp=[3] * 3
    )
    whole, cut = path.read_bytes(), tmp_path / "cut.th"
    for length in (4, 100, len(whole) // 2, len(whole) - 40, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelFileError) as refused:
            model_file.read(cut)
        assert "\n" not in str(refused.value)
    with zipfile.ZipFile(cut, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ModelFileError, match="no pickle"):
        model_file.read(cut)


def test_flipped_bits_are_refused_or_harmless(tmp_path):
    path = tensorf_twin.write(
        tmp_path / "x.th", gridSize=[4, 4, 4], density_n_comp=[1, 1, 1], appearance_n_comp=[3] * 3
    )
    whole, random = path.read_bytes(), np.random.default_rng(0)
    start = whole.index(b"data.pkl") + 60
    for at in random.integers(start, start + 2000, 60):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            model_file.read(path)
        except ModelFileError as refused:
            assert "\n" not in str(refused)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FieldConfig(decoder="sh"), "decoder is sh"),
        (FieldConfig(density_activation="relu", density_shift=-1.0), "relu knows no shift"),
    ],
)
def test_a_field_that_no_checkpoint_can_hold_is_refused_in_one_line(tmp_path, config, message):
    state = random_state(np.random.default_rng(1), max_rank=1, rank_scales=False, config=config)
    with pytest.raises(ConfigError, match=message):
        tensorf_write.write(state, tmp_path / "x.th")
    assert not (tmp_path / "x.th").exists()


def _edit(path, pickled=lambda data: data, compression=zipfile.ZIP_STORED):
    """Writes the zip anew, with its pickle changed."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts:
            archive.writestr(name, pickled(data) if name.endswith("data.pkl") else data)
