"""Output that fails never costs work: signals, pipes whose readers go, closed terminals, full disks."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tslim.model import model_file
from tslim.training import checkpoint

ROOT = Path(__file__).resolve().parent.parent
TRAIN = [
    "train", "--arch", "cpu", "--preset", "tiny", "--downscale", "10", "--max-images", "6", "--batch-rays", "64",
    "--steps", "100000", "--report-every", "1", "--checkpoint-every", "100000", "--out", "run",
]  # fmt: skip


def start(*words: object, cwd: Path, **how) -> subprocess.Popen:
    """A command in a process group of its own, as a terminal would start it: SIGHUP ends it, nohup or not."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    env.pop("TSLIM_TRACEBACK", None)
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    command = [sys.executable, "-m", "tslim", *map(str, words)]
    how.setdefault("preexec_fn", lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **how)


def wait_for_steps(folder: Path, steps: int = 3) -> None:
    """Until the run has logged some steps."""
    log = folder / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.read_bytes().count(b"\n") >= steps):
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.05)


def saved_step(folder: Path) -> int:
    """Step of the checkpoint, which must be one that can be read, beside a model that can be read."""
    assert model_file.read(folder / "run" / "unfinished.slim").rank >= 1
    return checkpoint.load(folder / "run" / "checkpoint.npz")[1]["step"]


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGHUP))],
    ids=lambda n: n.name,
)
def test_a_signal_to_the_whole_group_saves_although_the_pipe_dies_with_it(tmp_path, number):
    """As a terminal does with ``train | tee log``: the reader ends first, and what is printed has nowhere to go."""
    training = start(*TRAIN, cwd=tmp_path)
    reader = subprocess.Popen(["cat"], stdin=training.stdout, stdout=subprocess.DEVNULL)
    training.stdout.close()
    wait_for_steps(tmp_path)
    reader.kill()
    reader.wait()
    training.send_signal(number)
    _, err = training.communicate(timeout=60)
    assert training.returncode in (128 + number, 141), err  # 141 if it noticed its reader's end before the signal
    assert b"saved at step" in err and b"--resume" in err and len(err.splitlines()) == 1, err
    assert saved_step(tmp_path) >= 3


@pytest.mark.slow
def test_a_reader_that_goes_in_mid_run_ends_it_saved_with_141(tmp_path):
    training = start(*TRAIN, cwd=tmp_path, stdout=subprocess.PIPE)
    wait_for_steps(tmp_path)
    training.stdout.close()
    assert training.wait(timeout=120) == 141
    err = training.stderr.read()
    assert b"saved at step" in err and b"Traceback" not in err, err
    assert saved_step(tmp_path) >= 3


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_it_saved(tmp_path):
    """The terminal's end closes: SIGHUP comes, and whatever is printed fails."""
    ours, theirs = pty.openpty()
    training = start(*TRAIN, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wait_for_steps(tmp_path)
    os.close(ours)
    time.sleep(0.2)
    training.send_signal(signal.SIGHUP)
    assert training.wait(timeout=60) == 129
    assert saved_step(tmp_path) >= 3


@pytest.mark.slow
def test_two_signals_end_it_at_once_and_leave_no_half_written_file(tmp_path):
    training = start(*TRAIN, cwd=tmp_path)
    wait_for_steps(tmp_path)
    training.send_signal(signal.SIGINT)
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130 and b"Traceback" not in err, err
    assert not [path.name for path in (tmp_path / "run").rglob("*partial*")]


@pytest.mark.slow
def test_what_nohup_ignores_stays_ignored(tmp_path):
    words = [*TRAIN]
    words[words.index("--steps") + 1] = "40"
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", ignore, sys.executable, "-m", "tslim", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    training = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_steps(tmp_path)
    training.send_signal(signal.SIGHUP)
    _, err = training.communicate(timeout=240)
    assert training.returncode == 0, err
    assert (tmp_path / "run" / "model.slim").exists()


@pytest.mark.parametrize("where", ["full", pytest.param("closed", marks=pytest.mark.slow)])
def test_an_output_that_takes_nothing_does_not_keep_training_from_its_end(tmp_path, where):
    words = [*TRAIN]
    words[words.index("--steps") + 1] = "5"
    if where == "full" and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = " ".join([sys.executable, "-m", "tslim", *words]) + (" >&-" if where == "closed" else " >/dev/full")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, stderr=subprocess.PIPE, timeout=240)
    assert done.returncode == (0 if where == "closed" else 2), done.stderr
    printed = b"tslim: cannot write standard output: No space left on device\n"
    assert done.stderr == (b"" if where == "closed" else printed)
    assert (tmp_path / "run" / "images" / "orbit.mp4").exists()
    assert len(json.loads((tmp_path / "run" / "eval.json").read_text())["rows"]) == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help >&-", 0),
        ("--help > /dev/full", 2),
        ("--help | true; exit ${PIPESTATUS[0]}", 141),
        ("info nothing-here 2>&-", 2),
        ("info nothing-here 2>/dev/full", 2),
        ("info nothing-here >&- 2>&- <&-", 2),
    ],
)
def test_commands_end_as_documented_whatever_their_output_goes_to(tmp_path, command, code):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = f"{sys.executable} -m tslim {command}"
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


AT_A_CALL = """
import os, random, runpy, signal, sys
rng, left, outcomes = random.Random(5), 0, []

def at_call(frame, event, given):
    # Now and then, a copy of this process hears Ctrl-C here; what it leaves behind is noted.
    global left
    left -= 1
    if left > 0:
        return
    left = rng.randrange(20_000)
    ours, theirs = os.pipe()
    copy = os.fork()
    if copy == 0:
        sys.setprofile(None)
        os.dup2(theirs, 1), os.dup2(theirs, 2), os.close(theirs), os.close(ours)
        os.kill(os.getpid(), signal.SIGINT)
        return
    os.close(theirs)
    with open(ours, "rb") as said:
        text, code = said.read(), os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        outcomes.append((text, code, f"{frame.f_code.co_filename}:{frame.f_lineno}"))

def begin_once_main_is_ours(frame, event, given):
    if frame.f_code.co_name == "main" and frame.f_globals.get("_leave"):
        signal.signal(signal.SIGINT, frame.f_globals["_leave"])  # what its first line is about to do
        sys.setprofile(at_call)

class UntilTaichi:
    # Threads do not outlive a fork; those of numpy are used to it.
    def find_spec(self, name, path=None, target=None):
        if name == "taichi" and sys.getprofile():
            sys.setprofile(None)
            wrong = [each for each in outcomes if each[:2] != (b"tslim: interrupted\\n", 130)]
            os.write(1, f"{len(outcomes)} {wrong}".encode())
            os._exit(bool(wrong))

sys.meta_path.insert(0, UntilTaichi())
sys.setprofile(begin_once_main_is_ours)
runpy.run_module("tslim", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_ctrl_c_at_any_call_while_modules_load_is_one_line(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork, by which one start is interrupted in many places")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TSLIM_TRACEBACK": ""}
    words = [sys.executable, "-c", AT_A_CALL, *TRAIN]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 50
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_at_any_moment_of_starting_is_one_line(tmp_path):
    """While Taichi loads, while the device starts, while pictures are made, in the first steps."""
    began = time.monotonic()
    training = start(*TRAIN, cwd=tmp_path)
    wait_for_steps(tmp_path, 1)
    whole = time.monotonic() - began
    training.kill()
    training.communicate()
    for share in (0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.15):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        training = start(*TRAIN, cwd=tmp_path)
        time.sleep(share * whole)
        os.killpg(training.pid, signal.SIGINT)
        out, err = training.communicate(timeout=60)
        assert training.returncode == 130, err
        if b"saved at step" in out:
            assert err == b"" and saved_step(tmp_path) >= 0
        else:
            assert err == b"tslim: interrupted\n"
            assert not list(tmp_path.iterdir()), "what has not begun leaves nothing"
