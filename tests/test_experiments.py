"""Experiments: what is trained once is not trained again, tables say what was measured, and every app runs."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from apps import _experiments as experiments
from apps import _recipes as recipes
from apps import _report as report
from tslim import cli, config, optional, presets
from tslim.commands import options
from tslim.commands.console import Console
from tslim.data import scene_from_settings
from tslim.errors import ConfigError, RunFolderError
from tslim.measuring import eval_json
from tslim.measuring.evaluate import SweepRow
from tslim.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
APPS = ("truncation", "dedicated", "ablation", "block_descent", "approximations", "sparse_views", "border_views")


def variant(name: str, **psnr: float) -> report.Variant:
    return report.Variant(name, [SweepRow(int(rank[1:]), 1000, value, 0.9, 5.0) for rank, value in psnr.items()])


def test_a_table_has_a_column_a_rank_and_differences_to_the_reference():
    alone, one = variant("alone", r16=31.0, r4=28.0), variant("one", r2=25.0, r4=28.25, r16=30.5)
    heads, cells = report.table([alone, one], reference="alone", extra={"rank": {"one": "16"}})
    assert heads == ["trained as", "2", "4", "16", "rank"]
    assert cells == [
        ["alone", "–", "28.00", "31.00", "–"],
        ["one", "25.00", "28.25 (+0.25)", "30.50 (-0.50)", "16"],
    ]
    with pytest.raises(ConfigError, match="no line is called 'other': there are alone, one"):
        report.table([alone, one], reference="other")


@pytest.mark.parametrize("width", [70, 200])
def test_a_table_breaks_no_word_where_a_terminal_is_narrow(width):
    shown = io.StringIO()
    console = Console(RichConsole(file=shown, force_terminal=True, color_system=None, width=width))
    console.table(["trained as", *"1248", "rank reached"], [["all prefixes (CCNeRF)", *["22.03 (-0.73)"] * 4, "16"]])
    assert "…" not in shown.getvalue()
    for word in ("prefixes", "(CCNeRF)", "(-0.73)", "reached"):
        assert word in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) <= width


def test_every_training_of_an_experiment_sees_the_same_number_of_rays():
    base = experiments.base_settings(experiments.Options(quick=True, steps=300, rays=512))
    assert (base.steps, base.batch_rays, base.batch_decoded) == (300, 512, 0)
    assert max(base.grow_steps) < 300 and max(base.occupancy_steps) < 300
    fixed, staged = recipes.plain(base, "fixed"), recipes.ours(base)
    assert fixed.batch_rays == staged.batch_rays == 512
    assert not fixed.field.rank_scales and fixed.schedule.policy == "fixed"
    assert staged.field.rank_scales and staged.schedule == presets.demo().schedule
    assert recipes.ours(base, more_rays=1.5, prefix_share=0.1).batch_rays == 768
    assert recipes.ours(base, prefix_share=0.1).schedule.prefix_share == 0.1


def test_a_run_of_other_length_does_everything_at_the_same_shares():
    settings = config.with_steps(presets.paper(), 3000)
    assert settings.grow_steps == (200, 300, 400, 550, 700) and settings.occupancy_steps == (200, 400)
    config.require_valid(config.with_steps(presets.paper(), 2))
    with pytest.raises(ConfigError, match="steps is 0"):
        config.with_steps(presets.paper(), 0)


@pytest.fixture(scope="module")
def args(cpu, tmp_path_factory) -> experiments.Options:
    small = options.SceneOptions(downscale=8, max_images=4)
    out = tmp_path_factory.mktemp("experiment")
    return experiments.Options(quick=True, steps=8, rays=64, out=out, arch="cpu", scene_options=small)


def new_experiment(args: experiments.Options) -> tuple[experiments.Experiment, io.StringIO]:
    printed = io.StringIO()
    return experiments.Experiment("trial", args, Console(RichConsole(file=printed, width=120))), printed


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(optional, "has", lambda name: False)


def test_a_line_becomes_a_training_for_each_seed_with_all_that_it_needs_in_its_folder(args):
    experiment, _ = new_experiment(dataclasses.replace(args, seeds=2, views=2))
    few = dataclasses.replace(experiment.scene, train=experiment.scene.train.subset([1, 3]))
    plan = experiment._plan([experiments.Line("Two views!", experiment.settings, (4, 1), few)])
    first, second = plan.runs
    assert [run.name for run in plan.runs] == ["two-views", "two-views-seed-1"] and first.ranks == (4, 1)
    assert second.record["train"] == first.record["train"] | {"seed": 1}
    assert first.record["train"]["precision"] == "float16"
    scene = scene_from_settings(first.record["scene"])
    assert scene.train.names == few.train.names and len(scene.test) == 2
    assert (scene.train.pixels == few.train.pixels).all() and scene.box.tolist() == few.box.tolist()
    parsed = cli.parse(first.command(Path("f"), resume=False))
    assert parsed.resume and parsed.out == Path("f")


def test_a_folder_with_another_run_is_refused_before_anything_is_trained(args, tmp_path):
    experiment, _ = new_experiment(dataclasses.replace(args, out=tmp_path))
    line = experiments.Line("a line", experiment.settings)
    (training,) = experiment._plan([line]).runs
    training.prepare(experiment.run("a line"))
    training.prepare(experiment.run("a line"))  # the same once more
    with pytest.raises(RunFolderError, match="other settings"):
        experiment.train(dataclasses.replace(line, settings=dataclasses.replace(line.settings, seed=1)))


def test_the_table_of_what_is_finished_needs_no_training(args, tmp_path, monkeypatch):
    experiment, printed = new_experiment(dataclasses.replace(args, out=tmp_path, table=True))
    lines = [experiments.Line(name, experiment.settings, (4,)) for name in ("a line", "another")]
    with pytest.raises(ConfigError, match="not finished in .*: a line, another"):
        experiment.train(*lines)
    monkeypatch.setattr(experiments, "is_done", lambda plan, run: run.line == "a line")
    measured = {"rows": {4: SweepRow(4, 1000, 25.0, 0.9, 5.0)}, "views": 1, "minutes": 2.0, "peak_mb": 300.0}
    monkeypatch.setattr(experiments.sweep_table, "result", lambda plan, run: measured if run.line == "a line" else None)
    (only,) = experiment.train(*lines)
    assert only.name == "a line" and only.psnr(4) == 25.0
    assert "not finished: another" in printed.getvalue() and not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="not finished in .*: another"):
        experiment.train(*lines, whole=True)


def test_rays_of_the_preset_are_as_many_as_its_steps_take():
    base = experiments.base_settings(experiments.Options(preset="demo", rays="preset"))
    assert base == presets.demo() and base.batch_decoded > 0
    with pytest.raises(ConfigError, match="batch_rays is 0"):
        experiments.base_settings(experiments.Options(rays=0))


@pytest.mark.slow
def test_runs_that_are_there_are_used_again_and_interrupted_ones_go_on(args, without_ray):
    experiment, printed = new_experiment(args)
    settings = recipes.plain(experiment.settings, "linear", linear_share=0.9)
    settings = dataclasses.replace(settings, field=dataclasses.replace(settings.field, max_rank=4))
    line = experiments.Line("Linear growth!", settings, ranks=(1, 4, 16))
    (first,) = experiment.train(line)
    assert [row.rank for row in first.rows] == [4, 1] and first.reached() == 4
    assert "1/1 linear-growth: done" in printed.getvalue()
    folder = args.out / "linear-growth"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    again, printed = new_experiment(args)
    assert again.train(line) == [first] and "done" not in printed.getvalue()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    # A run that was stopped before its model was written goes on.
    for name in ("model.slim", "eval.json", "sweep.json"):
        (folder / name).unlink()
    (third,) = again.train(line)
    assert "resumed" in (args.out / "linear-growth.log").read_text(encoding="utf-8")
    assert [(row.rank, row.psnr) for row in third.rows] == [(row.rank, row.psnr) for row in first.rows]


@pytest.mark.slow
def test_several_seeds_are_several_runs_and_the_table_has_their_means(args, without_ray):
    args = dataclasses.replace(args, seeds=2, out=args.out / "seeds")
    experiment, _ = new_experiment(args)
    (line,) = experiment.train(experiments.Line("a line", recipes.plain(experiment.settings, "fixed"), (2, 16)))
    found = []
    for seed, name in enumerate(("a-line", "a-line-seed-1")):
        run = RunFolder(args.out / name)
        assert run.settings()["train"]["seed"] == seed
        found.append({row.rank: row for row in eval_json.read(run.evaluation)[0]})
    assert [row.rank for row in line.rows] == [16, 2]
    for row in line.rows:
        one, other = found[0][row.rank], found[1][row.rank]
        assert one.psnr != other.psnr and row.psnr == pytest.approx((one.psnr + other.psnr) / 2)
        assert row.bytes == pytest.approx((one.bytes + other.bytes) / 2, abs=1)
    experiment.report("seeds", [line])
    assert "means of 2 seeds" in (args.out / "table.md").read_text(encoding="utf-8")


def test_a_report_is_a_table_for_people_one_for_documents_and_one_for_machines(args):
    experiment, printed = new_experiment(args)
    one = dataclasses.replace(
        variant("one", r4=28.25), settings=experiment.settings, history=[{"step": s, "psnr": 9.0 + s} for s in (1, 2)]
    )
    written = experiment.report(
        "a trial", [variant("alone", r4=28.0), one], reference="alone", extra={"n": {"one": "7"}}
    )
    assert {path.name for path in written} == {"table.md", "results.json", "size-quality.png", "training.png"}
    text = (args.out / "table.md").read_text(encoding="utf-8")
    assert "| trained as | 4 | n |\n| --- | --- | --- |\n| alone | 28.00 | – |\n| one | 28.25 (+0.25) | 7 |" in text
    assert "8 steps of 64 rays" in text and "Command: `" in text
    found = json.loads((args.out / "results.json").read_text(encoding="utf-8"))
    assert found["variants"][1]["rows"][0]["psnr"] == 28.25 and found["variants"][1]["n"] == "7"
    assert found["train"]["steps"] == found["variants"][1]["train"]["steps"] == 8
    assert "28.25 (+0.25)" in printed.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        ["--stepz", "3"],
        ["--steps", "few"],
        ["nowhere"],
        ["--quick", "--steps", "0"],
        ["--views", "0"],
        ["--seeds", "0"],
    ],
)
def test_an_app_refuses_in_one_line(words, tmp_path):
    command = [sys.executable, str(ROOT / "apps" / "dedicated.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("tslim: ") and not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
def test_every_app_trains_measures_and_reports(app, tmp_path):
    words = ["--quick", "--steps", "6", "--rays", "64", "--views", "1", "--downscale", "8", "--max-images", "4"]
    command = [sys.executable, str(ROOT / "apps" / f"{app}.py"), *words, "--arch", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    folder = next((tmp_path / "runs").iterdir())
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert f"`python apps/{app}.py --quick" in text and "| trained as |" in text
    assert {"table.md", "results.json", "size-quality.png"} <= {path.name for path in folder.iterdir()}
