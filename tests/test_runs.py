"""Run folders in use: what an unfinished run can be used for, and what evaluations remember of one another."""

import json
from pathlib import Path

import pytest

from tests.command_line import SMALL, refused, tslim
from tslim import config, files, presets
from tslim.data.builtin import builtin_scene
from tslim.measuring import eval_json
from tslim.model import model_file
from tslim.training.events import CheckpointSaved
from tslim.training.run_folder import RunFolder
from tslim.training.trainer import Trainer


@pytest.fixture(scope="module")
def trained(cpu, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    words = ("--schedule.policy", "fixed", "--precision", "float16")
    assert tslim("train", *SMALL, *words, "--steps", 20, "--out", run)[0] == 0
    return run


@pytest.fixture
def unfinished(cpu, tmp_path) -> Path:
    """A run that was left after its first checkpoint, at step 10 of 20."""
    settings = config.with_steps(presets.tiny(), 20)
    settings = config.from_dict(config.to_dict(settings) | {"checkpoint_every": 10})
    scene = builtin_scene(size=40, train=8, test=4)
    run = RunFolder(tmp_path / "run")
    run.create({"scene": {"path": None, "downscale": 5}, "train": config.to_dict(settings)})
    trainer = Trainer(Trainer.new_field(scene, settings), scene, settings, run_dir=run.path)
    for event in trainer.run():
        if isinstance(event, CheckpointSaved):
            break
    return run.path


def test_an_unfinished_run_can_be_measured_rendered_slimmed_and_looked_into(unfinished, tmp_path):
    for words in (
        ("eval", unfinished, "--ranks", 1, "--arch", "cpu"),
        ("render", unfinished, "--size", "32x32", "-o", tmp_path / "x.png", "--arch", "cpu"),
        ("slim", unfinished, "--rank", 1, "-o", tmp_path / "x.slim"),
    ):
        code, out, err = tslim(*words)
        assert (code, err) == (0, "") and "has not finished: this is its model after 10 steps" in out
    code, out, _ = tslim("info", unfinished)
    assert code == 0 and "last checkpoint" in out and "10 steps" in out


def test_the_model_of_a_checkpoint_goes_when_the_run_is_finished(trained):
    run = RunFolder(trained)
    assert run.model.exists() and not run.unfinished.exists()


def test_a_run_without_a_checkpoint_is_one_clear_line(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create({"scene": {"path": None}, "train": config.to_dict(presets.tiny())})
    assert "continue it with train --resume" in refused("render", run.path, "-o", tmp_path / "x.png")


def test_train_on_a_run_says_that_it_is_one_and_how_to_continue_it(trained):
    printed = refused("train", trained, "--arch", "cpu")
    assert f"{trained} is a run, not photographs" in printed and f"tslim train --out {trained} --resume" in printed


def test_eval_of_one_rank_keeps_what_is_known_of_the_others(trained):
    before = {row.rank: row for row in eval_json.read(trained / "eval.json")[0]}
    assert set(before) == {4, 3, 2, 1}
    assert tslim("eval", trained, "--ranks", 3, "--arch", "cpu")[0] == 0
    rows, views = eval_json.read(trained / "eval.json")
    assert [row.rank for row in rows] == [4, 3, 2, 1] and views == 8
    assert all(row == before[row.rank] for row in rows if row.rank != 3)
    best = max(row.psnr for row in rows)
    assert tslim("slim", trained, "--min-psnr", best - 0.001, "-o", trained / "s.slim")[0] == 0


def test_rows_of_another_model_or_other_photographs_are_not_kept(trained, tmp_path):
    for change in ("model", "photographs"):
        files.write_bytes(tmp_path / "m.slim", (trained / "model.slim").read_bytes())
        assert tslim("eval", tmp_path / "m.slim", "--ranks", 2, "--max-images", 4, "--arch", "cpu")[0] == 0
        if change == "model":
            model_file.write(model_file.read(trained / "model.slim", rank=2), tmp_path / "m.slim")
        images = 4 if change == "model" else 3
        assert tslim("eval", tmp_path / "m.slim", "--ranks", 1, "--max-images", images, "--arch", "cpu")[0] == 0
        found = json.loads((tmp_path / "m-eval" / "eval.json").read_text())
        assert [row["rank"] for row in found["rows"]] == [1] and found["views"] == images


def test_compact_without_a_size_keeps_all_ranks(trained, tmp_path):
    code, out, _ = tslim("slim", trained, "--precision", "compact", "-o", tmp_path / "s.slim")
    assert code == 0 and "kept 4 of 4 ranks, rounded by 0.1" in out
    header = model_file.read_header(tmp_path / "s.slim")
    assert header.rank == 4 and header.precision == "compact"
    assert "--precision alone" in refused("slim", trained, "-o", tmp_path / "t.slim")


def test_slim_does_not_put_a_model_under_another_kinds_name(trained, tmp_path):
    for name in ("x.ply", "x", "x.npz"):
        assert "whose name ends in .slim" in refused("slim", trained, "--rank", 1, "-o", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_size_that_no_rank_fits_in_names_what_compact_files_would_do(trained, tmp_path):
    sizes = model_file.sizes(model_file.read(trained / "model.slim"))
    words = ("slim", trained, "-o", tmp_path / "s.slim", "--max-mb")
    printed = refused(*words, f"{(sizes[0] - 1000) / 1e6:.6f}")
    assert "no rank fits" in printed and "--precision compact keeps" in printed
    printed = refused(*words, "0.0001")
    assert "and with --precision compact: no rank fits" in printed
