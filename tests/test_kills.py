"""Killed at any moment and resumed to the same bits; trained for long without growing; odd scenes and moved folders."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import damage
from tslim.model import model_file
from tslim.training.run_folder import RunFolder

WORDS = ["train", "--arch", "cpu", "--preset", "tiny", "--downscale", "10", "--max-images", "6", "--batch-rays", "64",
         "--steps", "200", "--report-every", "5", "--checkpoint-every", "10"]  # fmt: skip

IN_A_WRITE = """
import os, random, signal, sys
from tslim import cli, files
rng = random.Random(sys.argv[1])
fsync, replace = os.fsync, os.replace
def killer(of, share):
    def call(*args, **kwargs):
        if rng.random() < share:
            os.kill(os.getpid(), signal.SIGKILL)
        return of(*args, **kwargs)
    return call
os.fsync, os.replace = killer(fsync, 0.01), killer(replace, 0.01)
sys.exit(cli.main(sys.argv[2:]))
"""


def same_model(one: Path, other: Path) -> bool:
    """Whether two models hold the same bits (their files differ by the seconds that training took)."""
    a, b = model_file.read(one), model_file.read(other)
    arrays = [[*s.density_planes, *s.density_lines, *s.appearance_planes, *s.appearance_lines, s.basis] for s in (a, b)]
    return all(np.array_equal(x, y) for x, y in zip(*arrays, strict=True)) and all(
        np.array_equal(a.decoder[name], b.decoder[name]) for name in a.decoder
    )


@pytest.mark.long
def test_killed_at_fifty_random_moments_a_run_ends_in_the_same_bits(tmp_path):
    """By SIGKILL, half of them inside the writing of files; each resumed, until nothing is left to do."""
    began = time.monotonic()
    new = [*WORDS, "--steps", "100", "--checkpoint-every", "5"]
    assert damage.tslim(*new, "--out", "whole", cwd=tmp_path).returncode == 0
    whole = time.monotonic() - began
    rng, env = random.Random(7), damage.environment()
    run = RunFolder(tmp_path / "parts")
    kills, finished = {"anywhere": 0, "in a write": 0}, 0
    while kills["anywhere"] < 25 or kills["in a write"] < 25 or run.path.exists():
        words = ["train", "--out", "parts", "--resume"] if run.config.exists() else [*new, "--out", "parts"]
        where = min(kills, key=lambda name: kills[name])
        how = ["-m", "tslim"] if where == "anywhere" else ["-c", IN_A_WRITE, str(rng.random())]
        training = subprocess.Popen(
            [sys.executable, *how, *words], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            _, err = training.communicate(timeout=rng.uniform(0.1, 1.1) * whole if where == "anywhere" else 600)
            assert training.returncode in (0, -signal.SIGKILL), err
        except subprocess.TimeoutExpired:
            training.kill()
            training.communicate()
        kills[where] += training.returncode == -signal.SIGKILL
        if training.returncode == 0:
            finished += 1
            assert same_model(tmp_path / "whole" / "model.slim", run.model)
            steps = [row["step"] for row in run.history()]
            assert steps == sorted(set(steps)) and steps[-1] == 100
            assert not [p for p in run.path.rglob("*partial*") if time.time() - p.stat().st_mtime > 5]
            shutil.rmtree(run.path)
        print(f"killed {kills}, ended {finished} times", flush=True)


SOAK = """
import dataclasses, gc, os, resource, threading
import tslim
from tslim import config, presets
tslim.init("cpu")
scene = tslim.builtin_scene(size=20, train=6, test=2)
settings = dataclasses.replace(config.with_steps(presets.tiny(), 20_000), batch_rays=64, report_every=100)
settings = dataclasses.replace(settings, checkpoint_every=500)
trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings, run_dir="soak")
def held():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()
for event in trainer.run():
    if isinstance(event, tslim.Stepped) and event.step == 4000:
        before = held()
after = held()
print("bytes, handles, threads", before, after)
assert after[0] - before[0] < 20e6 and after[1] <= before[1] and after[2] <= before[2], (before, after)
"""


@pytest.mark.long
def test_twenty_thousand_steps_take_no_more_memory_handles_or_threads(tmp_path):
    done = damage.python(SOAK, cwd=tmp_path, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    print(done.stdout)


STOPPED = """
import os, signal, sys
from tslim import cli
from tslim.training.checkpoints import Checkpoints
save = Checkpoints.save
def saved_and_stopped(*given):
    os.kill(os.getpid(), signal.SIGINT)
    return save(*given)
Checkpoints.save = saved_and_stopped
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_folder_can_be_moved_and_copied_and_continued_where_it_is(tmp_path):
    words = [*WORDS]
    words[words.index("200")] = "20"
    assert damage.tslim(*words, "--out", "whole", cwd=tmp_path).returncode == 0
    command = [sys.executable, "-c", STOPPED, *words, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=damage.environment(), capture_output=True, timeout=300)
    assert done.returncode == 130 and RunFolder(tmp_path / "run").history()[-1]["step"] == 10, done.stderr
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "copy")
    os.rename(tmp_path / "run", tmp_path / "moved")
    for folder in ("moved", "elsewhere/copy"):
        done = damage.tslim("train", "--out", folder, "--resume", "--arch", "cpu", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert same_model(tmp_path / "whole" / "model.slim", tmp_path / folder / "model.slim")
        done = damage.tslim("eval", folder, "--ranks", "1", "--arch", "cpu", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_that_began_on_the_cpu_goes_on_on_another_arch(gpu, tmp_path):
    words = [*WORDS]
    words[words.index("200")] = "20"
    assert damage.tslim(*words, "--out", "whole", cwd=tmp_path).returncode == 0
    command = [sys.executable, "-c", STOPPED, *words, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=damage.environment(), capture_output=True, timeout=300)
    assert done.returncode == 130, done.stderr
    done = damage.tslim("train", "--out", "run", "--resume", "--arch", gpu, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [RunFolder(tmp_path / name).history() for name in ("whole", "run")]
    assert [row["step"] for row in rows[1]] == [5, 10, 15, 20] == [row["step"] for row in rows[0]]
    # The same photographs, rays and steps, in sums of another order.
    assert abs(rows[0][-1]["loss"] / rows[1][-1]["loss"] - 1) < 1e-3
    states = [model_file.read(tmp_path / name / "model.slim") for name in ("whole", "run")]
    for a, b in zip(states[0].density_planes, states[1].density_planes, strict=True):
        assert np.abs(a - b).max() < 0.01 and np.isfinite(b).all()
