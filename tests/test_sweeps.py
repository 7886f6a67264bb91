"""Sweeps: what a file asks for, what is done again and what is not, the table, and nodes that are lost on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tslim
from tslim import cli, config
from tslim.data import scene_from_settings
from tslim.errors import ConfigError
from tslim.measuring import eval_json
from tslim.measuring.evaluate import SweepRow
from tslim.model import model_file
from tslim.sweeps import engine, single, table
from tslim.sweeps.plan import read_plan
from tslim.training.run_folder import RunFolder

FILE = """
out = "made"
presets = ["quick", "tiny"]
seeds = [0, 3]
ranks = [4, 1]
[scenes]
lego = "data/lego"
ball = { path = "builtin", downscale = 5, max_images = 6 }
[settings]
steps = 50
[variants.smooth]
tv_density = 0.1
lazy_adam = false
schedule.upsilon = 0.3
grow_steps = [10, 20]
"""


def plan_of(tmp_path: Path, text: str = FILE):
    (tmp_path / "sweep.toml").write_text(text)
    return read_plan(tmp_path / "sweep.toml")


def test_a_file_becomes_every_combination_each_with_a_folder_of_its_own(tmp_path):
    plan = plan_of(tmp_path)
    assert len(plan.runs) == 2 * 2 * 2 * 2 and len({run.name for run in plan.runs}) == 16
    assert plan.out == (tmp_path / "made").absolute()
    run = next(run for run in plan.runs if run.name == "ball-tiny-smooth-seed3")
    assert run.command(Path("f"), resume=False) == (
        "train --preset tiny --seed 3 --out f --downscale 5 --max-images 6 --steps 50 --tv-density 0.1 --no-lazy-adam "
        "--schedule.upsilon 0.3 --grow-steps 10 20"
    ).split(" ")
    assert cli.parse(run.command(Path("f"), resume=False)).settings.schedule.upsilon == 0.3
    lego = next(run for run in plan.runs if run.scene == "lego")
    assert lego.command(Path("f"), resume=False)[1] == str(tmp_path / "data" / "lego")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "is no TOML"),
        ("", "no scenes"),
        ('[scenes]\na = "x"\n[more]\n', "unknown key 'more'; known: out, presets"),
        ('presets = ["good"]\n[scenes]\na = "x"', "preset 'good' is unknown; known: quick"),
        ('seeds = "0"\n[scenes]\na = "x"', "seeds is '0': expected a list of whole numbers"),
        ('seeds = [1, 1]\n[scenes]\na = "x"', "seeds names something twice"),
        ('ranks = [0]\n[scenes]\na = "x"', "expected 1 or more"),
        ('[scenes]\n"../a" = "x"', "cannot name a folder"),
        ("[scenes]\na = 3", "scene a is 3: expected a path"),
        ('[scenes]\na = {path = "x", depth = 1}', "unknown key 'depth'"),
        ('[scenes]\na = "x"\n[settings]\nsteps = 2020-01-01', "steps is .*: expected a number"),
        ("seeds = [" + "1" * 5000 + ']\n[scenes]\na = "x"', "is no TOML"),
        ('[scenes]\na = "x"\n[settings]\n' + "a." * 3000 + "b = 1", "settings: 'a.a.*is no setting"),
        ('[scenes]\na = "x\\u0000"', "expected a path"),
        ('[scenes]\na = "x"\na-quick = "x"\n[variants.quick]\nsteps = 3', "would be named a-quick-quick-seed0"),
        (f"seeds = {list(range(9000))}\n[scenes]\n" + "\n".join(f'a{i} = "x"' for i in range(20)), "180000 trainings"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line_that_names_the_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as raised:
        plan_of(tmp_path, text)
    assert "\n" not in str(raised.value) and "sweep.toml" in str(raised.value)


def pretend(plan, run, psnr: float, minutes: float = 2.0) -> None:
    """A training that has ended with these numbers."""
    folder = RunFolder(plan.folder(run))
    rows = [SweepRow(rank, 1000 * rank, psnr - 1 / rank, 0.9, 5.0) for rank in (4, 1)]
    eval_json.write(folder.evaluation, rows, 3)
    record = {"command": run.command(folder.path, resume=False), "minutes": minutes, "peak_mb": 500.0, "max_rank": 4}
    (folder.path / single.RECORD).write_text(json.dumps(record))


def test_the_table_has_means_over_seeds_and_scenes_and_says_what_is_missing(tmp_path):
    plan = plan_of(tmp_path, FILE.replace('["quick", "tiny"]', '["quick"]'))
    for run in plan.runs:
        if run.variant == "plain":
            pretend(plan, run, (30.0 if run.scene == "lego" else 20.0) + run.seed)
    cells = {(cell.line, cell.scene, cell.rank): cell for cell in table.entries(plan)}
    assert cells["quick", "lego", 4].psnr == pytest.approx(31.25) and cells["quick", "lego", 4].seeds == 2
    assert cells["quick", "mean", 1].psnr == pytest.approx((30.5 + 20.5) / 2)
    written = {path.name: path for path in table.write(plan, list(cells.values()))}
    rows = list(csv.DictReader(written["table.csv"].read_text().splitlines()))
    assert {"PSNR", "SSIM", "LPIPS", "Size [Bytes]"} <= set(rows[0]) and rows[0]["Size [Bytes]"] == "4000"
    text = written["table.md"].read_text()
    assert "| lego | quick | 31.25 (0.00 MB) | 30.50 (0.00 MB) | 2.0 |" in text
    assert "| lego | SlimmeRF-16 | 36.45 |" in text, "published figures of scenes of that name"
    assert "Not finished: lego-quick-smooth-seed0" in text
    assert json.loads(written["table.json"].read_text())["finished"]["lego-quick-seed0"] is True
    assert written["size-quality.png"].stat().st_size > 5000


def test_lpips_is_measured_where_the_file_asks_for_it_and_stands_in_the_table_then(tmp_path):
    text = FILE.replace('["quick", "tiny"]', '["quick"]').replace("[0, 3]", "[0]")
    plan = plan_of(tmp_path, text)
    for run in plan.runs:
        pretend(plan, run, 30.0)
    wanting = plan_of(tmp_path, f"lpips = true\n{text}")
    assert single.is_done(plan, plan.runs[0]) and not single.is_done(wanting, wanting.runs[0])
    for run, value in zip(wanting.runs, (0.1, 0.2, 0.3, 0.4), strict=True):
        rows = [SweepRow(rank, 1000 * rank, 30.0, 0.9, 5.0, lpips=value) for rank in (4, 1)]
        eval_json.write(RunFolder(wanting.folder(run)).evaluation, rows, 3)
    cells = table.entries(wanting)
    written = {path.name: path for path in table.write(wanting, cells)}
    rows = list(csv.DictReader(written["table.csv"].read_text().splitlines()))
    assert rows[0]["LPIPS"] == "0.1000" and "LPIPS (VGG):" in written["table.md"].read_text()
    means = [cell.lpips for cell in cells if cell.scene == "mean"]
    assert means == [pytest.approx(0.2)] * 2 + [pytest.approx(0.3)] * 2
    with pytest.raises(ConfigError, match="lpips is 3: expected true or false"):
        plan_of(tmp_path, "lpips = 3\n" + FILE)


def test_what_was_trained_with_other_settings_is_not_done(tmp_path):
    plan = plan_of(tmp_path)
    pretend(plan, plan.runs[0], 30.0)
    assert single.is_done(plan, plan.runs[0])
    changed = plan_of(tmp_path, FILE.replace("steps = 50", "steps = 60"))
    assert not single.is_done(changed, changed.runs[0])


def test_an_array_of_slurm_jobs_runs_one_training_each(tmp_path, capsys):
    plan = plan_of(tmp_path)
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), "--slurm", "--arch", "cpu"]) == 0
    script = (plan.out / "sweep.sbatch").read_text()
    assert f'#SBATCH --output="{plan.out}/slurm-%a.log"' in script, "the folder's name may hold a blank"
    assert "#SBATCH --array=0-15" in script and "--only $SLURM_ARRAY_TASK_ID" in script and "gres" not in script
    subprocess.run(["bash", "-n", plan.out / "sweep.sbatch"], check=True)
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), "--only", "16"]) == 2
    assert "trainings 0 to 15" in capsys.readouterr().err


def test_who_lacks_ray_is_told_what_to_install(tmp_path, monkeypatch, capsys):
    plan_of(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert cli.main(["sweep", str(tmp_path / "sweep.toml"), "--cpus", "1"]) == 2
    assert "needs ray, which is not installed: pip install" in capsys.readouterr().err


def test_without_ray_trainings_run_here_one_after_another(tmp_path, monkeypatch, capsys):
    plan = plan_of(tmp_path, FILE.replace('["quick", "tiny"]', '["tiny"]'))
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    performed = []

    def perform(plan, run, arch, threads=None):
        performed.append(run.name)
        if run.seed:
            return "it broke"
        pretend(plan, run, 30.0)
        return ""

    monkeypatch.setattr(engine, "perform", perform)
    assert cli.main(["sweep", str(tmp_path / "sweep.toml")]) == 1
    assert performed == [run.name for run in plan.runs]
    shown = capsys.readouterr().out
    assert "1/8 lego-tiny-seed0: done" in shown and "2/8 lego-tiny-seed3: it broke" in shown
    assert "without Ray" in shown and (plan.out / "table.csv").exists()


SMALL = """
presets = ["tiny"]
seeds = [0, 1]
ranks = [4, 1]
[scenes]
ball = { path = "builtin", downscale = 5, max_images = 6 }
[settings]
steps = 100
checkpoint_every = 20
schedule.policy = "fixed"
grow_steps = [30, 60]
"""


@pytest.mark.slow
def test_a_training_without_a_cluster_is_measured_and_not_done_twice(tmp_path):
    plan = plan_of(tmp_path, SMALL.replace("steps = 100", "steps = 40"))
    assert single.perform(plan, plan.runs[0], "cpu", threads=1) == ""
    measured = single.result(plan, plan.runs[0])
    assert set(measured["rows"]) == {4, 1} and measured["peak_mb"] > 50
    before = RunFolder(plan.folder(plan.runs[0])).model.stat().st_mtime_ns
    assert single.perform(plan, plan.runs[0], "cpu") == ""
    assert RunFolder(plan.folder(plan.runs[0])).model.stat().st_mtime_ns == before
    bad = plan_of(tmp_path, SMALL.replace("steps = 100", "steps = 0"))
    assert "steps" in single.perform(bad, bad.runs[1], "cpu")


def test_memory_is_that_of_each_process_and_not_the_most_of_all_so_far():
    code = """
import subprocess, sys
from tslim.sweeps import single
for words in ("bytearray(b'x') * 400_000_000", "0", "raise SystemExit(3)"):
    process = subprocess.Popen([sys.executable, "-c", words])
    print(single.ended(process), process.returncode)
"""
    env = {**os.environ, "PYTHONPATH": single.python_path()}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    large, small, broken = (line.split() for line in done.stdout.splitlines())
    assert float(large[0]) > 400 > 300 > float(small[0]) > 1, done.stdout
    assert (large[1], small[1], broken[1]) == ("0", "0", "3")


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_waits_for_its_training_to_save(tmp_path):
    plan = plan_of(tmp_path, SMALL.replace("steps = 100", "steps = 100000").replace("_every = 20", "_every = 100000"))
    folder = RunFolder(plan.folder(plan.runs[0]))
    code = "import sys; sys.modules['ray'] = None; from tslim import cli; sys.exit(cli.main(sys.argv[1:]))"
    words = ["sweep", str(plan.source), "--arch", "cpu"]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *words], env={**os.environ, "PYTHONPATH": single.python_path()},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder.path / "metrics.jsonl").exists() or not folder.history():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "saved at step" in (plan.out / f"{plan.runs[0].name}.log").read_text()
    assert any(folder.path.glob("checkpoint*"))


@pytest.mark.slow
def test_a_node_that_is_lost_costs_no_training_and_changes_no_bit(cpu, tmp_path):
    ray = pytest.importorskip("ray", reason="ray, which runs sweeps, is not installed (tests/requirements.txt)")
    from ray.cluster_utils import Cluster

    plan = plan_of(tmp_path, SMALL)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        running = engine.run_on_ray(plan, plan.runs, engine.Place(cpus=1, arch="cpu"))
        ended = []
        folders = [RunFolder(plan.folder(run)) for run in plan.runs]
        killer = _when(lambda: all(f.path.exists() and any(f.path.glob("checkpoint*")) for f in folders),
                       lambda: cluster.remove_node(second, allow_graceful=False))  # fmt: skip
        ended = list(running)
        killer.join(timeout=5)
        assert killer.done, "the node was lost while both were training"
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(end.run.name for end in ended) == sorted(run.name for run in plan.runs)
    assert [end.problem for end in ended] == ["", ""]
    for folder in folders:
        settings = config.from_dict(folder.settings()["train"])
        scene = scene_from_settings(folder.settings()["scene"])
        trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
        for _ in trainer.run():
            pass
        plain = model_file.read(trainer.field.save(tmp_path / "plain.slim", precision=settings.precision))
        found = model_file.read(folder.model)
        for mode in range(3):
            assert (found.density_planes[mode] == plain.density_planes[mode]).all()
            assert (found.appearance_planes[mode] == plain.appearance_planes[mode]).all()
        steps = [row["step"] for row in folder.history()]
        assert steps == sorted(set(steps)), "no step is logged twice"


def _when(ready, act):
    """A thread that acts once something is ready; ``done`` says whether it did."""
    import threading

    class Watcher(threading.Thread):
        done = False

        def run(self):
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                if ready():
                    act()
                    self.done = True
                    return
                time.sleep(0.05)

    watcher = Watcher(daemon=True)
    watcher.start()
    return watcher
