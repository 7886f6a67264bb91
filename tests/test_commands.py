"""The commands from end to end, on the built-in scene: what they leave behind, and what they refuse."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from tests.command_line import SMALL, refused, tslim
from tslim import config
from tslim.commands import eval as eval_command
from tslim.commands import parsing
from tslim.measuring import eval_json, evaluate
from tslim.model import model_file
from tslim.training.run_folder import RunFolder
from tslim.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(cpu, tmp_path_factory) -> tuple[Path, str]:
    """A finished run at all four ranks, and what its training said; its model is in half precision."""
    run = tmp_path_factory.mktemp("runs") / "deep" / "run"
    code, out, err = tslim("train", *SMALL, "--schedule.policy", "fixed", "--precision", "float16", "--out", run)
    assert (code, err) == (0, "")
    return run, out


@pytest.fixture(scope="module")
def small_scene(tmp_path_factory) -> Path:
    """Four photographs of noise, all of them to test on as well, in the Blender layout."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    frames = []
    for i in range(4):
        iio.imwrite(folder / f"{i}.png", rng.integers(0, 255, (80, 80, 4), np.uint8))
        pose = np.eye(4)
        pose[2, 3] = 4 + i / 10
        frames.append({"file_path": f"./{i}", "transform_matrix": pose.tolist()})
    for split in ("train", "test"):
        text = json.dumps({"camera_angle_x": 0.7, "frames": frames})
        (folder / f"transforms_{split}.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def bare(trained, tmp_path_factory) -> Path:
    """The same model without anything that it remembers."""
    state = model_file.read(trained[0] / "model.slim")
    state.metadata = {}
    return model_file.write(state, tmp_path_factory.mktemp("bare") / "bare.slim")


def test_training_leaves_everything_it_lists(trained):
    run, out = trained
    listed = [Path(line.split("  ")[1]) for line in out[out.index("wrote") :].splitlines()[1:]]
    assert {path.relative_to(run).as_posix() for path in listed} == {
        "model.slim",
        "eval.json",
        "images/comparison.png",
        "images/contributions.png",
        "images/size-quality.png",
        "images/training.png",
        "images/rank-trace.png",
        "images/orbit.mp4",
    }
    assert all(path.stat().st_size > 0 for path in listed)


def test_training_ends_with_a_table_of_ranks(trained):
    run, out = trained
    rows, views = eval_json.read(run / "eval.json")
    assert [(row.rank, row.views) for row in rows] == [(4, None), (3, 3), (2, None), (1, None)] and views == 8
    for row in rows:
        assert f"{row.bytes / 1e6:.2f}" in out and f"{row.psnr:.2f}" in out


def test_the_log_holds_steps_in_order_with_all_their_figures(trained):
    run, _ = trained
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert all(set(row) >= {"step", "rank", "loss", "psnr", "seconds"} for row in rows)


def test_a_trained_model_says_what_its_ranks_are_worth_and_shows_a_thumbnail(trained):
    run, _ = trained
    header = model_file.read_header(run / "model.slim")
    rows, _ = eval_json.read(run / "eval.json")
    assert header.table.quality == {row.rank: round(row.psnr, 2) for row in rows}
    assert header.metadata["thumbnail"]
    _, out, _ = tslim("info", run / "model.slim")
    assert re.search(r"thumbnail +192×192, \d+\.\d kB", out)
    for row in rows:
        assert f"{row.bytes / 1e6:.2f} MB  {row.psnr:.2f} dB" in out


def test_sizes_in_eval_json_are_those_of_files_as_written(trained, tmp_path):
    run, _ = trained
    for row in eval_json.read(run / "eval.json")[0]:
        out = tmp_path / f"{row.rank}.slim"
        assert tslim("slim", run, "--rank", row.rank, "--reorder", "no", "-o", out)[0] == 0
        assert out.stat().st_size == row.bytes


def test_a_second_run_in_the_same_folder_is_refused_and_changes_nothing(trained):
    run, _ = trained
    before = contents(run)
    assert "holds another run" in refused("train", *SMALL, "--out", run)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["render", "RUN", "-o", "RUN"], "is not empty: name a folder"),
        (["render", "RUN", "-o", "OTHER"], "is not empty: name a folder"),
        (["render", "RUN", "-o", "SCENE"], "is not empty: name a folder"),
        (["export", "RUN", "-o", "RUN"], "is not empty: name a folder"),
        (["slim", "RUN", "--rank", 2, "-o", "RUN/model.slim"], "is the model itself"),
        (["slim", "RUN", "--rank", 2, "-o", "OTHER/model.slim"], "is a file of the run in OTHER"),
        (["reorder", "RUN", "-o", "OTHER/unfinished.slim"], "is a file of the run in OTHER"),
        (["export", "RUN", "-o", "OTHER/config.json"], "is a file of the run in OTHER"),
        (["export", "RUN", "--split", "-o", "OTHER/model.html"], "is a file of the run in OTHER"),
        (["export", "RUN", "--split", "--rank", 2, "-o", "RUN/model.html"], "is the model itself"),
        (["eval", "RUN", "-o", "OTHER"], "holds another run"),
        (["eval", "RUN/model.slim", "-o", "OTHER"], "holds another run"),
        (["eval", "RUN", "-o", "SCENE"], "holds photographs"),
        (["train", "SCENE", "-o", "SCENE"], "neither empty nor a run folder"),
    ],
)
def test_nothing_is_written_among_the_files_of_a_run_or_a_data_set(trained, small_scene, tmp_path, words, message):
    run, _ = trained
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "eval.json", "model.slim"):
        (other / name).write_bytes((run / name).read_bytes())
    places = {"RUN": run, "OTHER": other, "SCENE": small_scene}
    before = [contents(folder) for folder in places.values()]
    named = [re.sub("^[A-Z]+", lambda m: str(places[m[0]]), str(word)) for word in words]
    assert message.replace("OTHER", str(other)) in refused(*named)
    assert [contents(folder) for folder in places.values()] == before


def test_a_folder_that_may_not_be_written_is_said_before_the_work(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("tslim.commands.shared.os.access", lambda path, how: path != tmp_path)
    for words in (["slim", "--rank", 2, "-o", "a.slim"], ["render", "-o", "a.mp4"], ["export", "-o", "new/a.html"]):
        assert f"no permission in {tmp_path}" in refused(words[0], trained[0], *words[1:-1], tmp_path / words[-1])


def test_a_page_has_its_names_where_the_locale_knows_ascii_only(trained, tmp_path):
    (tmp_path / "Ö [a].slim").write_bytes((trained[0] / "model.slim").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "tslim", "export", "Ö [a].slim", "--split", "-o", "Ä.html"], cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "Ä.html").read_text(encoding="utf-8")
    assert "<title>Ö [a]" in page and '"%C3%84.slim"' in page and (tmp_path / "Ä.slim").exists()


def test_what_only_training_needs_is_gone_when_views_are_measured(cpu, tmp_path, monkeypatch):
    made, left = [], []

    class Watched(Trainer):
        def __init__(self, *args, **named):
            made.append(weakref.ref(self))
            super().__init__(*args, **named)

    monkeypatch.setattr("tslim.training.trainer.Trainer", Watched)
    monkeypatch.setattr(eval_command, "report", lambda *args: left.extend(ref() for ref in made))
    code, _, err = tslim("train", *SMALL, "--steps", "3", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert left == [None]


def test_resuming_a_finished_run_measures_it_again_and_trains_no_further(trained):
    run, _ = trained
    before = model_file.read(run / "model.slim")
    code, out, _ = tslim("train", "--arch", "cpu", "--out", run, "--resume")
    assert code == 0 and "wrote" in out
    after = model_file.read(run / "model.slim")
    assert all(map(np.array_equal, before.density_planes, after.density_planes))
    assert after.metadata["steps"] == 60


@pytest.mark.parametrize("words", [["--steps", "90"], ["--field.decoder", "sh"], ["--downscale", "2"]])
def test_a_resumed_run_keeps_its_settings(trained, words):
    run, _ = trained
    assert f"{words[0]} cannot be changed on --resume" in refused("train", "--out", run, "--resume", *words)


def test_options_that_repeat_the_runs_own_do_not_keep_it_from_resuming(trained):
    run, _ = trained
    own = ("--schedule.policy", "fixed", "--precision", "float16")
    options = parsing.parse(["train", *SMALL, "--out", str(run), "--resume", *own])
    assert options.resume and options.settings == config.from_dict(RunFolder(run).settings()["train"])


def test_eval_measures_the_ranks_it_is_told_on_all_test_views(trained, tmp_path):
    run, _ = trained
    code, out, _ = tslim("eval", run, "--ranks", 1, 3, "--arch", "cpu", "--out", tmp_path, "--save-images")
    assert code == 0
    table = json.loads((tmp_path / "eval.json").read_text())
    assert table["views"] == 8
    assert [row["rank"] for row in table["rows"]] == [3, 1]
    assert [set(row) for row in table["rows"]] == [{"rank", "bytes", "psnr", "ssim", "ms_per_frame"}] * 2
    assert len(list((tmp_path / "images" / "rank-03").glob("*.png"))) == 8
    assert "mean of 8 test views" in out


def test_a_lone_file_of_the_built_in_scene_can_be_measured(trained, tmp_path):
    run, _ = trained
    small = tmp_path / "two.slim"
    assert tslim("slim", run / "model.slim", "--rank", 2, "--reorder", "no", "-o", small)[0] == 0
    assert tslim("eval", small, "--ranks", 2, "--arch", "cpu")[0] == 0
    full, cut = (eval_json.read(path)[0] for path in (run / "eval.json", tmp_path / "two-eval" / "eval.json"))
    assert [row.psnr for row in cut] == pytest.approx([row.psnr for row in full if row.rank == 2], abs=0.05)


def test_slim_warns_of_ranks_that_training_never_rendered(trained, bare, tmp_path):
    run, _ = trained  # policy fixed
    words = ("--reorder", "no", "-o", tmp_path / "s.slim")
    assert "warning: training never rendered fewer than 4 ranks" in tslim("slim", run, "--rank", 3, *words)[1]
    assert "warning" not in tslim("slim", run, "--rank", 4, *words)[1]
    pair = ("--density-rank", 4, "--appearance-rank", 2)
    assert "warning" in tslim("slim", run, *pair, *words)[1]
    assert "warning" not in tslim("slim", bare, "--rank", 1, *words)[1], "its file does not say how it was trained"


def test_slim_by_size_keeps_what_fits(trained, tmp_path):
    run, _ = trained
    sizes = {row.rank: row.bytes for row in eval_json.read(run / "eval.json")[0]}
    out = tmp_path / "s.slim"
    assert tslim("slim", run, "--max-mb", (sizes[2] + 10) / 1e6, "--reorder", "no", "-o", out)[0] == 0
    assert out.stat().st_size == sizes[2]


def test_slim_by_size_keeps_no_rank_that_eval_found_to_be_worse_than_a_lower_one(trained, tmp_path):
    run, _ = trained
    model = model_file.write(model_file.read(run / "model.slim"), tmp_path / "model.slim")
    sizes = model_file.sizes(model_file.read(model))
    table, out = tmp_path / "model-eval" / "eval.json", tmp_path / "s.slim"
    as_is = ("--reorder", "no", "-o", out)
    rows = [evaluate.SweepRow(r, sizes[r - 1], p, 0.5, 9.0) for r, p in ((4, 31.0), (3, 28.5), (2, 29.5), (1, 20.0))]
    eval_json.write(table, rows, 8)
    for most, best, printed in ((sizes[3], 4, False), (sizes[2], 2, True), (sizes[1], 2, False)):
        code, text, _ = tslim("slim", model, "--max-mb", most / 1e6, *as_is)
        assert code == 0 and out.stat().st_size == sizes[best - 1]
        assert ("3 would fit, but eval measured 28.50 dB there and 29.50 dB with 2" in text) == printed
    assert "rank 2 is better: it has 29.50 dB" in tslim("slim", model, "--rank", 3, *as_is)[1]
    assert out.stat().st_size == sizes[2], "what is asked for is done"
    eval_json.write(table, [dataclasses.replace(row, bytes=row.bytes + 1) for row in rows], 8)
    assert tslim("slim", model, "--max-mb", sizes[2] / 1e6, *as_is)[0] == 0
    assert out.stat().st_size == sizes[2], "what was measured of another model counts for nothing"


def test_slim_by_quality_keeps_the_lowest_rank_that_was_measured_to_be_good_enough(trained, tmp_path):
    run, _ = trained
    table = tmp_path / "model-eval" / "eval.json"
    model = model_file.write(model_file.read(run / "model.slim"), tmp_path / "model.slim")
    sizes = model_file.sizes(model_file.read(model))
    rows = [evaluate.SweepRow(r, sizes[r - 1], psnr, 0.5, 9.0) for r, psnr in ((4, 31.0), (2, 29.5), (1, 20.0))]
    eval_json.write(table, rows, 8)
    for wanted, rank in ((29.5, 2), (29.6, 4), (5, 1)):
        code, out, _ = tslim("slim", model, "--min-psnr", wanted, "-o", tmp_path / "s.slim")
        assert code == 0 and re.search(f"kept {rank} of 4 ranks", out) and "dB" in out
        assert (tmp_path / "s.slim").stat().st_size == sizes[rank - 1]
    other = dataclasses.replace(rows[0], bytes=rows[0].bytes + 1)
    eval_json.write(table, [other], 8)
    assert "another model" in refused("slim", model, "--min-psnr", 9, "-o", tmp_path / "t.slim")


def test_slim_by_quality_measures_on_photographs_that_are_named(trained, small_scene, tmp_path):
    run, _ = trained
    # Noise has no picture in it: all ranks are about as bad, and the first will do.
    code, out, _ = tslim(
        "slim", run, "--min-psnr", 1, "--scene", small_scene, "-o", tmp_path / "s.slim", "--arch", "cpu"
    )
    assert code == 0 and "kept 1 of 4 ranks" in out
    words = ("slim", run, "--min-psnr", 90, "--scene", small_scene, "-o", tmp_path / "t.slim", "--arch", "cpu")
    assert "no rank has 90 dB" in refused(*words)


def test_slim_takes_separate_ranks_and_everything_else_reads_them(trained, tmp_path):
    run, _ = trained
    out = tmp_path / "s.slim"
    code, printed, _ = tslim("slim", run, "--density-rank", 4, "--appearance-rank", 2, "-o", out)
    assert code == 0 and "kept 4 ranks of density and 2 of appearance of 4 ranks" in printed
    assert model_file.read(out).separate_ranks == (4, 2)
    assert "4 of density, 2 of appearance" in tslim("info", out)[1]
    assert tslim("eval", out, "--arch", "cpu", "--out", tmp_path / "e")[0] == 0
    rows, _ = eval_json.read(tmp_path / "e" / "eval.json")
    assert [row.rank for row in rows] == [4, 3, 2, 1] and rows[0].bytes == out.stat().st_size
    assert tslim("slim", out, "--rank", 3, "-o", tmp_path / "t.slim")[0] == 0
    assert model_file.read(tmp_path / "t.slim").separate_ranks == (3, 2)


def test_slim_finds_the_best_pair_of_ranks_within_a_size(trained, tmp_path):
    run, _ = trained
    state = model_file.read(run / "model.slim")
    limit = (model_file.sizes(state)[1] + 100) / 1e6
    code, printed, err = tslim("slim", run, "--max-mb", limit, "--separate", "-o", tmp_path / "s.slim", "--arch", "cpu")
    assert (code, err) == (0, "")
    tried = {line.split("  ")[0]: float(line.split()[-2]) for line in printed.splitlines() if line.endswith(" dB")}
    # A rank of appearance takes three times what one of density does: for two of each, also five and one, but
    # there are four.
    assert set(tried) == {"2 ranks", "4 ranks of density and 1 of appearance"}
    best = max(tried, key=tried.get)
    assert f"kept {best.removesuffix(' ranks')} of 4 ranks" in printed
    assert (tmp_path / "s.slim").stat().st_size <= limit * 1e6


def test_slim_writes_compact_models_that_every_command_reads_and_that_stay_so(trained, tmp_path):
    run, _ = trained
    out = tmp_path / "s.slim"
    code, printed, _ = tslim("slim", run, "--rank", 3, "--precision", "compact", "-o", out)
    assert (code, "kept 3 of 4 ranks, rounded by 0.1" in printed) == (0, True)
    printed = tslim("info", out)[1]
    assert "(compact, rounded by 0.1)" in printed
    assert tslim("eval", out, "--arch", "cpu", "--out", tmp_path / "e")[0] == 0
    rows, _ = eval_json.read(tmp_path / "e" / "eval.json")
    assert next(r for r in rows if r.rank == 3).bytes == out.stat().st_size
    assert tslim("slim", out, "--rank", 2, "-o", tmp_path / "t.slim")[0] == 0
    assert tslim("slim", out, "--rank", 2, "--rounding", 0.3, "-o", tmp_path / "v.slim")[0] == 0
    assert (tmp_path / "v.slim").stat().st_size < (tmp_path / "t.slim").stat().st_size
    cut = (tmp_path / "t.slim").read_bytes()
    assert cut == out.read_bytes()[: len(cut)]
    assert tslim("slim", out, "--rank", 2, "--precision", "float16", "-o", tmp_path / "u.slim")[0] == 0
    assert model_file.read_header(tmp_path / "u.slim").precision == "float16"


def test_slim_rounds_a_compact_model_more_coarsely_before_it_drops_ranks(trained, tmp_path):
    run, _ = trained
    out, words = tmp_path / "s.slim", ("slim", run, "--precision", "compact", "--reorder", "no")
    assert tslim(*words, "--rank", 4, "--rounding", 0.15, "-o", out)[0] == 0
    limit = out.stat().st_size / 1e6
    code, printed, _ = tslim(*words, "--max-mb", limit, "-o", out)
    assert code == 0 and out.stat().st_size <= limit * 1e6, printed
    rounding = model_file.read_header(out).metadata["rounding"]
    assert 0.14 <= rounding <= 0.28 and f"kept 4 of 4 ranks, rounded by {rounding}" in printed
    assert model_file.read_header(out).rank == 4
    assert tslim(*words, "--max-mb", limit, "--rounding", 0.05, "-o", out)[0] == 0
    assert model_file.read_header(out).rank < 4 and out.stat().st_size <= limit * 1e6


def test_slim_says_that_eval_measured_before_rounding(trained, tmp_path):
    run, _ = trained
    words = ("slim", run, "--min-psnr", 1, "-o", tmp_path / "s.slim", "--arch", "cpu")
    assert "warning: eval measured the model before it is rounded" in tslim(*words, "--precision", "compact")[1]
    assert "before it is rounded" not in tslim(*words)[1]


def test_slim_tries_the_prefix_even_where_ranks_of_density_could_be_added(trained, tmp_path):
    run, _ = trained
    sizes = model_file.sizes(model_file.read(run / "model.slim"))
    limit = (sizes[1] + 0.5 * (sizes[2] - sizes[1])) / 1e6
    printed = tslim("slim", run, "--max-mb", limit, "--separate", "-o", tmp_path / "s.slim", "--arch", "cpu")[1]
    tried = {line.split("  ")[0] for line in printed.splitlines() if line.endswith(" dB")}
    # Half a rank is room for one or two of density.
    assert "2 ranks" in tried and any(words.endswith("of density and 2 of appearance") for words in tried)
    assert len(tried) == len([line for line in printed.splitlines() if line.endswith(" dB")])


@pytest.mark.parametrize("what", ["rgb", "depth", "opacity"])
def test_render_takes_one_picture(trained, tmp_path, what):
    run, _ = trained
    out = tmp_path / "p.png"
    code, printed, _ = tslim("render", run, "-o", out, "--size", "40x30", "--what", what, "--rank", 2, "--arch", "cpu")
    assert code == 0 and str(out) in printed
    assert picture(out).shape == (30, 40, 3)


def test_render_makes_a_film_and_a_folder_of_pictures(trained, tmp_path):
    run, _ = trained
    for out in ("video.mp4", "video.gif", "pictures"):
        words = ["-o", tmp_path / out, "--frames", 3, "--size", "32x24", "--arch", "cpu", "--fps", 5]
        assert tslim("render", run / "model.slim", *words)[0] == 0
    assert (tmp_path / "video.mp4").stat().st_size > 500
    assert (tmp_path / "video.gif").read_bytes()[:6] == b"GIF89a"
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["0000.png", "0001.png", "0002.png"]


def test_render_along_the_test_views_has_their_number_and_size(trained, tmp_path):
    run, _ = trained
    assert tslim("render", run, "-o", tmp_path / "t", "--path", "test", "--arch", "cpu")[0] == 0
    found = sorted((tmp_path / "t").iterdir())
    assert len(found) == 8 and picture(found[0]).shape == (40, 40, 3)


def test_render_puts_another_background_behind_the_model(trained, tmp_path):
    run, _ = trained
    corners = []
    for colour in ("black", "#ff0000"):
        out = tmp_path / f"{colour[1:]}.png"
        words = ["--background", colour, "--size", "64x64", "--arch", "cpu"]
        assert tslim("render", run, "-o", out, *words)[0] == 0
        corners.append(picture(out).astype(int))
    assert (corners[0] <= corners[1] + 1).all() and (corners[1][..., 0] > corners[0][..., 0] + 100).any()


def picture(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def test_info_describes_a_file_a_run_and_a_scene(trained):
    run, _ = trained
    code, out, _ = tslim("info", run / "model.slim")
    assert code == 0 and "float16" in out and "60 steps" in out and "orbit" in out
    code, out, _ = tslim("info", run)
    assert code == 0 and "step 60 of 60" in out and "rank   4" in out


@pytest.mark.parametrize("config_file", ["gone", "a folder", "damaged"])
def test_a_model_is_used_although_its_run_has_lost_its_settings(trained, tmp_path, config_file):
    copy = RunFolder(tmp_path / "copy")
    copy.path.mkdir()
    copy.model.write_bytes((trained[0] / "model.slim").read_bytes())
    if config_file == "a folder":
        copy.config.mkdir()
    elif config_file == "damaged":
        copy.config.write_text('{"scene"')
    used = str(copy.config), f"{copy.model} is used by itself"
    code, out, err = tslim("slim", copy.path, "--rank", 1, "--reorder", "no", "-o", tmp_path / "one.slim")
    assert (code, err) == (0, "") and all(words in out for words in used)
    if config_file == "a folder":
        assert tslim("eval", copy.path, "--ranks", 1, "--arch", "cpu", "--max-images", 1)[0] == 0
        assert copy.evaluation.exists()
    if config_file != "gone":
        code, out, _ = tslim("info", copy.path)
        assert code == 0 and used[1] in out and "rank   4" in out
    copy.model.unlink()
    assert "config.json" in refused("eval", copy.path)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"rows": [{"rank": 2}]}', "\x00"])
def test_info_says_that_an_evaluation_is_damaged_and_tells_the_rest(trained, tmp_path, text):
    copy = RunFolder(tmp_path / "copy")
    copy.path.mkdir()
    for name in ("config.json", "model.slim"):
        (copy.path / name).write_bytes((trained[0] / name).read_bytes())
    copy.evaluation.write_text(text)
    code, out, err = tslim("info", copy.path)
    assert (code, err) == (0, "") and "eval.json is not an evaluation" in out
    assert "rank   4" in out, "as the model itself tells"


def test_info_describes_a_data_set(cpu, shared_data):
    code, out, _ = tslim("info", shared_data("blender/chair"), "--max-images", 3)
    assert code == 0 and "blender" in out and "3 to train" in out and "400×400" in out


def test_doctor_reports_on_this_machine():
    code, out, _ = tslim("doctor")
    assert code == 0 and "cpu" in out and "Python" in out


# What is refused


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["eval", "{run}", "--ranks", "5"], "ranks 1 to 4"),
        (["eval", "{run}", "--ranks"], "no ranks"),
        (["eval", "{run}", "--out", "{run}/model.slim"], "is a file"),
        (["eval", "{tmp}/none"], "no such run folder or model file"),
        (["eval", "{tmp}"], "holds no run"),
        (["eval", "{bare}"], "--scene"),
        (["slim", "{run}", "-o", "{tmp}/s.slim"], "one of --rank, --max-mb, --min-psnr"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--rank", "2", "--min-psnr", "9"], "one of --rank"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--density-rank", "2"], "go together"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--density-rank", "5", "--appearance-rank", "2"], "ranks 1 to 4"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--separate", "--rank", "2"], "within --max-mb"),
        (
            ["slim", "{run}", "-o", "{tmp}/s.slim", "--separate", "--max-mb", "9", "--precision", "compact"],
            "afterwards",
        ),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--rank", "2", "--rounding", "0.1"], "rounding is for files of"),
        (
            ["slim", "{run}", "-o", "{tmp}/s.slim", "--rank", "2", "--precision", "compact", "--rounding", "0"],
            "above 0",
        ),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--separate", "--max-mb", "0.001"], "rank 1 takes"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--rank", "2", "--scene", "{tmp}"], "--scene has no effect"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--min-psnr", "9", "--downscale", "2"], "no effect without --scene"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--min-psnr", "99"], "no rank has 99 dB: the best is rank"),
        (["slim", "{bare}", "-o", "{tmp}/s.slim", "--min-psnr", "9"], "run eval first"),
        (["slim", "{bare}", "-o", "{tmp}/s.slim", "--separate", "--max-mb", "9"], "does not hold its photographs"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--rank", "0"], "ranks 1 to 4"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--rank", "5"], "ranks 1 to 4"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--max-mb", "0.001"], "rank 1 takes"),
        (["slim", "{run}", "-o", "{run}/model.slim", "--rank", "2"], "is the model itself"),
        (["slim", "{run}/config.json", "-o", "{tmp}/s.slim", "--rank", "2"], "not a tslim model"),
        (["render", "{run}", "-o", "{tmp}/a.jpg"], ".mp4, .gif or .png"),
        (["render", "{run}", "-o", "{tmp}/a.png", "--frames", "3"], "one picture"),
        (["render", "{run}", "-o", "{tmp}/a", "--frames", "0"], "--frames 0"),
        (["render", "{run}", "-o", "{tmp}/a.png", "--size", "800"], "WIDTHxHEIGHT"),
        (["render", "{run}", "-o", "{tmp}/a.png", "--rank", "9"], "1 to 4"),
        (["render", "{run}", "-o", "{tmp}/a.png", "--background", "beige"], "#rrggbb"),
        (["render", "{run}", "-o", "{tmp}/a", "--downscale", "2"], "--downscale has no effect"),
        (["render", "{run}", "-o", "{tmp}/a", "--path", "test", "--frames", "3"], "--frames has no effect"),
        (["render", "{run}", "-o", "{run}/config.json/a.mp4"], "is a file"),
        (["render", "{bare}", "-o", "{tmp}/a.mp4"], "knows: none"),
        (["train", "{tmp}/none"], "no such folder"),
        (["train", "{tmp}"], "unknown format"),
        (["train", "--downscale", "0"], "downscale 0"),
        (["train", "--max-images", "0"], "max images 0"),
        (["train", "--format", "blender"], "the built-in scene has none"),
        (["train", "--background", "beige"], "#rrggbb"),
        (["train", "--out", "{run}/model.slim"], "is a file"),
        (["train", "--resume"], "--out RUN"),
        (["train", "--resume", "--out", "{tmp}/none"], "no run"),
        (["train", "--arch", "cuda"], "cuda"),
        (["train", "--steps", "0"], "steps is 0"),
        (["train", "--schedule.upsilon", "nan"], "schedule.upsilon is nan"),
        (["train", "--grid-start", "64", "--grid-end", "32"], "grid_end 32"),
        (["train", "--grow-steps", "30", "20"], "must grow"),
        (["train", "--field.max-rank", "0"], "field.max_rank is 0"),
        (["train", "--grid-end", "20000", "--downscale", "5", "--max-images", "2"], "MB are free"),
        (["info", "{tmp}"], "unknown format"),
        (["info", "{tmp}/none"], "no such file or folder"),
        (["train", "{run}/images/orbit.mp4"], "a video; make a data set of it"),
        (["train", "{bare}"], "a model; give the folder"),
        (["train", "--field.max-rank", "-1"], "it must be 1 to 256"),
        (["eval", "{scene}"], "holds photographs: name a run folder, or a model file"),
        (["eval", "{run}", "--scene", "{tmp}/none"], "none: no such folder"),
        (["eval", "{run}/checkpoint.npz"], "is a checkpoint of training: name its run folder"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--max-mb", "-1"], "--max-mb -1: expected a number above 0"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--max-mb", "nan"], "--max-mb nan: expected a number above 0"),
        (["slim", "{run}", "-o", "{tmp}/s.slim", "--min-psnr", "nan"], "--min-psnr nan: expected"),
        (["render", "{run}", "-o", "{tmp}/a.mp4", "--fps", "0"], "--fps 0: expected 1 or more"),
        (["render", "{run}", "-o", "{tmp}/a.png", "--size", "99999x9"], "at most 16384 a side"),
    ],
)
def test_nonsense_is_one_clear_line_and_leaves_nothing(
    trained, bare, small_scene, tmp_path, monkeypatch, words, expected
):
    run, _ = trained
    monkeypatch.chdir(tmp_path)
    before = contents(run)
    assert expected in refused(*(word.format(run=run, tmp=tmp_path, bare=bare, scene=small_scene) for word in words))
    assert contents(run) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "other version", "garbage"])
def test_a_damaged_checkpoint_is_one_clear_line(trained, tmp_path, damage):
    run, _ = trained
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((run / "config.json").read_bytes())
    data = (run / "checkpoint.npz").read_bytes()
    altered = {
        "truncated": data[: len(data) // 2],
        "other version": data.replace(b'"version": 1', b'"version": 9'),
        "garbage": b"not a checkpoint",
    }[damage]
    assert altered != data
    (copy / "checkpoint.npz").write_bytes(altered)
    assert "checkpoint" in refused("train", "--resume", "--out", copy, "--arch", "cpu")


def test_a_damaged_model_is_one_clear_line(trained, tmp_path):
    run, _ = trained
    bad = tmp_path / "bad.slim"
    bad.write_bytes((run / "model.slim").read_bytes()[:100])
    for words in (["info", bad], ["render", bad, "-o", tmp_path / "x.png"], ["eval", bad]):
        assert "bad.slim" in refused(*words)


def test_a_folder_that_cannot_be_written_is_one_clear_line(cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission" in refused("train", *SMALL, "--out", tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(cpu, tmp_path, monkeypatch):
    from tslim.errors import OutOfMemoryError
    from tslim.training.trainer import Trainer

    def fails(self):
        raise OutOfMemoryError("too little memory:\nlower something")
        yield

    monkeypatch.setattr(Trainer, "run", fails)
    assert "too little memory: lower something" in refused("train", *SMALL, "--out", tmp_path / "run")
    assert not list(tmp_path.iterdir())


# Stopping and going on, in a process of its own


def start(*words: object, cwd: Path) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tslim", *map(str, words)],
        cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_saves_says_how_to_go_on_and_going_on_gives_the_same_bits(tmp_path):
    words = ["train", *SMALL, "--steps", "400", "--report-every", "5", "--schedule.policy", "fixed"]
    whole = start(*words, "--out", "whole", cwd=tmp_path)
    assert whole.wait(timeout=300) == 0, whole.stderr.read()

    parts = start(*words, "--out", "parts", cwd=tmp_path)
    log = tmp_path / "parts" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    parts.send_signal(signal.SIGINT)
    out, err = parts.communicate(timeout=120)
    assert (parts.returncode, err) == (130, ""), out
    saved = [line for line in out.splitlines() if line.startswith("saved at step")]
    assert saved and "Traceback" not in out
    command = out.splitlines()[-1].split()
    assert command[-1] == "--resume"
    assert not (tmp_path / "parts" / "model.slim").exists()

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    a, b = (model_file.read(tmp_path / name / "model.slim") for name in ("whole", "parts"))
    for one, other in zip(a.density_planes + a.appearance_lines, b.density_planes + b.appearance_lines, strict=True):
        assert np.array_equal(one, other)
    assert all(np.array_equal(a.decoder[name], b.decoder[name]) for name in a.decoder)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 400


def test_being_terminated_while_filming_leaves_no_half_written_file(trained, tmp_path):
    run, _ = trained
    rendering = start(
        "render", run, "-o", "video.mp4", "--frames", "9999", "--size", "64x64", "--arch", "cpu", cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.iterdir())
    rendering.terminate()
    out, err = rendering.communicate(timeout=60)
    assert rendering.returncode == 143 and "Traceback" not in err, err
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m tslim train --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
