"""Runs as they end if nobody says otherwise: with a compact model, measured as it is in its file."""

from pathlib import Path

import pytest

import tslim as library
from tests.command_line import SMALL, tslim
from tslim.measuring import eval_json
from tslim.model import model_file
from tslim.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(cpu, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compact") / "run"
    code, _, err = tslim("train", *SMALL, "--schedule.policy", "fixed", "--steps", 100, "--out", folder)
    assert (code, err) == (0, "")
    return folder


def test_what_is_measured_is_the_compact_file_that_is_left(run):
    header = model_file.read_header(run / "model.slim")
    assert header.precision == "compact" and "rounding" in header.metadata
    rows, views = eval_json.read(run / "eval.json")
    scene = library.builtin_scene(size=40, train=8, test=8)
    assert views == len(scene.test)
    field = library.load(run / "model.slim")
    again = {row.rank: row for row in library.rank_sweep(field, scene.test, sizes=list(header.ends))}
    for row in rows:
        assert row.bytes == header.bytes_at(row.rank)
        assert row.views is not None or abs(row.psnr - again[row.rank].psnr) < 1e-3


def test_it_takes_a_fraction_of_half_precision_and_loses_little(run, tmp_path):
    """Of a model of 17 dB: of one that has learned even less, little fits together, and rounding shows more."""
    from tslim.training.trainer import Trainer

    scene = library.builtin_scene(size=40, train=8, test=8)
    exact = Trainer.resume(run, scene).field
    row, other = (next(library.rank_sweep(f, scene.test, (4,))) for f in (exact, library.load(run / "model.slim")))
    assert abs(row.psnr - other.psnr) < 0.3
    half = exact.save(tmp_path / "half.slim").stat().st_size
    assert (run / "model.slim").stat().st_size < 0.45 * half


def test_slim_goes_on_from_a_compact_model(run, tmp_path):
    header = model_file.read_header(run / "model.slim")
    small = tmp_path / "small.slim"
    # Ranks that were trained whole are put in order before any are dropped.
    code, out, err = tslim("slim", run, "--rank", 2, "-o", small)
    assert (code, err) == (0, "") and "ranks in order" in out
    assert model_file.read_header(small).precision == "compact" and small.stat().st_size < header.n_bytes
    assert tslim("slim", run, "--rank", 2, "--reorder", "no", "-o", small)[0] == 0
    assert small.read_bytes() == (run / "model.slim").read_bytes()[: header.bytes_at(2)]
    code, out, err = tslim("slim", run, "--max-mb", 0.13, "--separate", "-o", small, "--arch", "cpu")
    assert (code, err) == (0, "") and "in half precision" in out
    assert model_file.read_header(small).precision == "float16"


def test_the_models_of_checkpoints_are_in_half_precision_and_others_as_is_asked_for(cpu, tmp_path):
    import dataclasses

    from tslim.training.trainer import Trainer

    scene = library.builtin_scene(size=20, train=4, test=1)
    for wanted in ("compact", "float16", "float32"):
        settings = dataclasses.replace(
            library.presets.with_steps(library.presets.tiny(), 2), precision=wanted, batch_rays=64
        )
        folder = RunFolder(tmp_path / wanted)
        trainer = Trainer(Trainer.new_field(scene, settings), scene, settings, run_dir=folder)
        for _ in trainer.run():
            pass
        trainer.save_checkpoint()
        assert model_file.read_header(folder.unfinished).precision == "float16"
        trainer.save_model()
        assert model_file.read_header(folder.model).precision == wanted
        # What half precision cannot hold is written in single, whatever was asked for.
        state = trainer.field.state()
        state.basis[0, 0, 0] = 1e5
        trainer.field._put(state)
        trainer.save_model()
        assert model_file.read_header(folder.model).precision == "float32"
