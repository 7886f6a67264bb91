"""A run folder under attack: two at once, killed writers, removed files, full disks, damaged checkpoints."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests import damage
from tests.command_line import refused
from tslim import config, files, presets
from tslim.data.builtin import builtin_scene
from tslim.errors import DivergedError, ModelFileError, RunFolderError
from tslim.model import model_file
from tslim.training import checkpoint, run_lock, watch
from tslim.training.events import CheckpointSaved, Progress, Stepped, Warned
from tslim.training.run_folder import RunFolder
from tslim.training.trainer import Trainer


@pytest.fixture(scope="module")
def scene(cpu):
    return builtin_scene(size=20, train=6, test=2)


def settings(**changes) -> config.TrainConfig:
    tiny = dataclasses.replace(config.with_steps(presets.tiny(), 20), batch_rays=64, report_every=5, checkpoint_every=5)
    return dataclasses.replace(tiny, **changes)


def started(folder: Path, scene, **changes) -> Trainer:
    wanted = settings(**changes)
    run = RunFolder(folder)
    if not run.config.exists():
        run.create({"scene": {"path": None}, "train": config.to_dict(wanted)})
    return Trainer(Trainer.new_field(scene, wanted), scene, wanted, run_dir=run)


def train(trainer: Trainer, until: int | None = None) -> list:
    """The events of a run, up to a step."""
    events = []
    for event in trainer.run():
        events.append(event)
        if until is not None and isinstance(event, CheckpointSaved) and event.step >= until:
            break
    return events


# Two at once

HOLD = "import sys, time; from pathlib import Path; from tslim.training import run_lock\n"
HOLD += "run_lock.take(Path(sys.argv[1])); print('taken', flush=True); time.sleep(600)"


def holder(folder: Path) -> subprocess.Popen:
    """Another process that trains in a folder."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], env=damage.environment(), stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "taken\n"
    return other


def test_a_folder_in_which_another_process_trains_is_refused_by_its_name(tmp_path, scene):
    other = holder(tmp_path / "run")
    try:
        with pytest.raises(RunFolderError, match=f"in use: process {other.pid} on .* trains there"):
            started(tmp_path / "run", scene)
    finally:
        other.kill()
        other.wait()
    assert (tmp_path / "run" / run_lock.NAME).exists(), "what a killed process leaves"
    started(tmp_path / "run", scene)  # and nobody has to remove


def test_where_files_cannot_be_locked_the_owner_is_looked_up(tmp_path, monkeypatch):
    """As on some network file systems. Its number alone does not say that it lives: numbers are used again."""
    monkeypatch.setattr(files, "try_lock", lambda handle: None)
    me = run_lock._this_process()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        alive = {**me, "pid": other.pid, "started": run_lock._started(other.pid)}
        cases = [
            (alive, True),
            ({**alive, "started": "1"}, False),
            ({**alive, "pid": 2**22 + 5}, False),
            ({**alive, "host": "elsewhere"}, True),
            ({}, False),
        ]
        for i, (owner, refuses) in enumerate(cases):
            folder = tmp_path / str(i)
            folder.mkdir()
            (folder / run_lock.NAME).write_text(json.dumps(owner))
            if refuses:
                with pytest.raises(RunFolderError, match="in use"):
                    run_lock.take(folder)
            else:
                run_lock.take(folder)
                run_lock.give(folder)
                assert not (folder / run_lock.NAME).exists()
    finally:
        other.communicate(b"\n")


def test_one_process_may_hold_a_folder_twice_and_gives_it_back_with_the_last(tmp_path):
    run_lock.take(tmp_path)
    run_lock.take(tmp_path)
    run_lock.give(tmp_path)
    assert (tmp_path / run_lock.NAME).exists()
    run_lock.give(tmp_path)
    assert not list(tmp_path.iterdir())
    other = holder(tmp_path)
    other.kill()
    other.wait()


def test_a_lock_does_not_follow_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / run_lock.NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(RunFolderError, match="cannot write"):
        run_lock.take(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "precious"


# Killed


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again_with_its_settings(tmp_path, scene):
    whole = started(tmp_path / "whole", scene)
    train(whole)
    run = RunFolder(tmp_path / "run")
    run.create({"scene": {"path": None}, "train": config.to_dict(settings())})
    run.metrics.write_text('{"step": 5, "rank": 1, "loss": 0.1, "psnr": 10, "seconds": 1}\n')
    again = Trainer.resume(run.path, scene)
    assert again.step == 0 and run.history() == []
    events = train(again)
    assert any(isinstance(e, Warned) and "starts again from its beginning" in e.message for e in events)
    for one, other in zip(whole.field.state().density_planes, again.field.state().density_planes, strict=True):
        assert one.tobytes() == other.tobytes()


def test_half_written_files_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path, scene):
    """If it was the config's, the folder still counts as empty."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "images").mkdir()
    orphan = run / ".config.0123456789abcdef.partial.json"
    image = run / "images" / ".video.0123456789abcdef.partial.mp4"
    image.touch()
    orphan.write_text("{")
    os.utime(orphan, (time.time() - 60,) * 2)
    os.utime(image, (time.time() + 3600,) * 2)  # the clock has been put back since
    image.parent.rename(tmp_path / "images")  # a folder of images belongs to a run that has begun
    RunFolder(run).require_free()
    with files.replacing(run / "model.slim") as living:
        os.utime(living, (time.time() - 60,) * 2)
        (tmp_path / "images").rename(run / "images")
        with RunFolder(run).owned():
            assert living.exists() and not orphan.exists() and not image.exists()
        living.write_bytes(b"whole")
    assert (run / "model.slim").read_bytes() == b"whole"


def test_a_killed_writer_of_one_file_is_cleaned_up_behind_by_the_next(tmp_path):
    code = (
        "import os, sys, signal; from tslim import files\n"
        "with files.replacing(sys.argv[1]) as t:\n    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "s.slim"
    done = subprocess.run([sys.executable, "-c", code, str(target)], env=damage.environment())
    assert done.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    os.utime(next(tmp_path.iterdir()), (time.time() - 60,) * 2)
    files.write_bytes(tmp_path / "other.slim", b"other")
    assert len(list(tmp_path.iterdir())) == 2, "that of another file stays"
    files.write_bytes(target, b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.slim", "s.slim"]


def test_many_writers_of_one_path_all_succeed_and_no_reader_sees_a_part(tmp_path):
    path, failed = tmp_path / "file", []
    files.write_bytes(path, b"0" * 5000)

    def write(letter: bytes) -> None:
        for _ in range(40):
            try:
                files.write_bytes(path, letter * 5000)
            except RunFolderError as error:
                failed.append(error)

    threads = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen = path.read_bytes()
        assert len(seen) == 5000 and len(set(seen)) == 1
    assert not failed and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_permissions_are_kept_and_new_files_have_those_of_the_umask(tmp_path):
    path = files.write_bytes(tmp_path / "secret", b"1")
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path.chmod(0o600)
    files.write_bytes(path, b"2")
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes() == b"2"


# Removed


def test_what_is_removed_while_training_is_written_again(tmp_path, scene):
    trainer = started(tmp_path / "run", scene)
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 7:
            (tmp_path / "run" / "config.json").unlink()
        if isinstance(event, Stepped) and event.step == 12:
            shutil.rmtree(tmp_path / "run")
    trainer.save_model()
    run = RunFolder(tmp_path / "run")
    assert run.train_settings() == settings() and (run.path / run_lock.NAME).exists()
    assert [row["step"] for row in run.history()] == [15, 20]
    assert checkpoint.load(run.checkpoints.newest)[1]["step"] == 20 and run.model.exists()


def test_a_folder_that_another_process_has_taken_meanwhile_is_not_written(tmp_path, scene):
    trainer = started(tmp_path / "run", scene)
    warned = []
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 6:
            shutil.rmtree(tmp_path / "run")
            other = holder(tmp_path / "run")
        warned += [event.message] if isinstance(event, Warned) else []
    assert any("in use" in message for message in warned)
    with pytest.raises(RunFolderError, match="in use"):
        trainer.save_model()
    other.kill()
    other.wait()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [run_lock.NAME]


# Full


def test_a_log_and_checkpoints_that_cannot_be_written_are_said_once_and_training_goes_on(tmp_path, scene, monkeypatch):
    trainer = started(tmp_path / "run", scene)
    full, messages, steps = [False], [], []
    fsync = os.fsync

    def fail(*args):
        if full[0]:
            raise OSError(28, "No space left on device")
        return fsync(*args)

    monkeypatch.setattr(os, "fsync", fail)
    for event in trainer.run():
        if isinstance(event, Stepped):
            full[0] = 7 <= event.step < 17
        messages += [event.message] if isinstance(event, Warned) and "occupied" not in event.message else []
        steps += [event.step] if isinstance(event, CheckpointSaved) else []
    assert steps == [5, 20] and len(messages) == 1 and "No space left on device; training goes on" in messages[0]
    assert checkpoint.load(tmp_path / "run" / "checkpoint.npz")[1]["step"] == 20


def test_a_line_that_a_full_disk_cut_short_spoils_itself_alone(tmp_path):
    run = RunFolder(tmp_path)
    line = '{"step": 1, "rank": 1, "loss": 0.1, "psnr": 10.0, "seconds": 1.0}\n'
    run.metrics.write_text(line + line[:20])
    from tslim.training.events import Progress

    run.log(Progress(2, 9, 1, 0.1, 10.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    assert [row["step"] for row in run.history()] == [1, 2]


@pytest.mark.slow
def test_a_run_on_a_full_file_system_says_so_and_goes_on_when_there_is_room_again(tmp_path):
    """For real: a small file system in memory, filled up while training."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(small)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        words = [
            "train",
            "--arch",
            "cpu",
            "--preset",
            "tiny",
            "--downscale",
            "10",
            "--max-images",
            "6",
            "--steps",
            "60",
        ]
        words += ["--batch-rays", "64", "--report-every", "1", "--checkpoint-every", "20", "--out", "small/run"]
        (small / "ballast").write_bytes(bytes(3_080_000))
        done = damage.tslim(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "No space left on device" in done.stderr and len(done.stderr.splitlines()) == 1
        assert "training goes on" in done.stdout and "step 60/60" in done.stdout
        assert not [p for p in small.rglob("*partial*")]
        (small / "ballast").unlink()
        done = damage.tslim("train", "--out", "small/run", "--resume", cwd=tmp_path)
        assert done.returncode == 0 and (small / "run" / "model.slim").exists(), done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


# Lost


def test_training_that_diverges_stops_at_once_and_says_what_to_lower(scene):
    wanted = settings(lr_factors=2e9, lr_network=2e9)
    trainer = Trainer(Trainer.new_field(scene, wanted), scene, wanted)
    with pytest.raises(DivergedError, match=r"diverged at step \d+.*lower --lr-factors \(now 2e\+09\)"):
        for _ in trainer.run():
            pass
    assert trainer.step < 20


def test_training_that_diverges_goes_back_to_its_checkpoint_and_on_more_slowly(tmp_path, scene):
    trainer = started(tmp_path / "run", scene)
    spoilt = messages = 0
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 12 and spoilt < 2:
            trainer.field.decoder.params[0] = np.nan
            spoilt += 1
        if isinstance(event, Warned) and "diverged at step" in event.message:
            messages += 1
            best = max((row for row in RunFolder(tmp_path / "run").history()), key=lambda row: row["psnr"])
            assert trainer.step == (10 if messages == 1 else best["step"]) and trainer.setbacks == messages
    assert (spoilt, messages, trainer.step) == (2, 2, 20)
    rows = [row["step"] for row in RunFolder(tmp_path / "run").history()]
    assert rows == [5, 10, 15, 20]
    assert checkpoint.load(tmp_path / "run" / "checkpoint.npz")[1]["setbacks"] == 2


def test_training_that_diverges_again_and_again_ends_with_its_last_good_checkpoint(tmp_path, scene):
    trainer = started(tmp_path / "run", scene)
    with pytest.raises(DivergedError, match="last good checkpoint is kept"):
        for event in trainer.run():
            if isinstance(event, Stepped) and event.step == 8:
                trainer.field.decoder.params[0] = np.inf
    assert trainer.setbacks == 3
    arrays, plain = checkpoint.load(tmp_path / "run" / "checkpoint.npz")
    assert plain["step"] == 5 and all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")


def shown(loss: float, variance: float = 0.06, background: float = 0.09, opacity: float = 0.5) -> watch.Shown:
    return watch.Shown(loss, variance, background, opacity)


def test_a_field_that_shows_less_than_one_colour_for_long_is_noticed_once():
    watched = watch.Watch()
    assert [watched.look(shown(0.09), 50) is None for _ in range(6)] == [True] * 3 + [False] + [True] * 2
    assert watched.is_lost and not watched.learned
    assert watched.look(shown(0.02), 50) is None and watched.learned and not watched.is_lost
    assert not any(watched.look(shown(0.005, 0.0), 50) for _ in range(9)), "photographs of one colour, good enough"
    assert watched.verdict() is None
    again = watch.Watch()
    again.load_state(json.loads(json.dumps(watched.state())))
    assert again.state() == watched.state() and watch.Watch.is_valid(again.state(), 500)
    again.load_state([50, True])
    assert watch.Watch.is_valid([50, True], 50) and again.steps == 50 and again.learned
    again.load_state(watched.state()[:5])
    assert watch.Watch.is_valid(watched.state()[:5], 500) and again.last is None
    for last in ([0.1] * 3, [0.1, 0.1, 0.1, -1.0], [0.1, 0.1, 0.1, "text"], "text"):
        assert not watch.Watch.is_valid([*watched.state()[:5], last], 500)


def test_a_short_run_is_judged_at_its_end_by_what_there_is_in_the_field():
    def verdict(*reports: watch.Shown, steps: int = 25) -> str | None:
        watched = watch.Watch()
        assert not any(watched.look(report, steps) for report in reports)
        return watched.verdict()

    assert verdict(shown(0.09, opacity=0.01)) is None, "as empty as it began"
    assert verdict(shown(0.08, opacity=0.3)) is None, "closer than the background alone"
    assert verdict(shown(0.065, background=0.06)) is None, "hardly worse than one colour"
    assert "makes no sense" in verdict(shown(0.09))
    assert "makes no sense" in verdict(shown(0.15), shown(0.09, opacity=0.0)), "it has emptied itself"
    assert "little better" in verdict(*[shown(0.05)] * 9)
    assert verdict(*[shown(0.05)] * 8) is None, "not for long"
    assert verdict(*[shown(0.05 * 0.94**i) for i in range(9)]) is None, "it becomes better"
    assert verdict(*[shown(0.03)] * 20) is None, "much better"


@pytest.mark.parametrize("steps", [20, 60])
def test_nonsense_of_a_short_run_is_said_at_its_end_and_of_a_healthy_one_nothing(scene, steps):
    def warnings(**changes) -> list[str]:
        wanted = settings(steps=steps, report_every=25, **changes)
        events = Trainer(Trainer.new_field(scene, wanted), scene, wanted).run()
        return [e.message for e in events if isinstance(e, Warned) and "occupied" not in e.message]

    assert warnings() == []
    assert warnings(lr_factors=0.2) == []
    assert "makes no sense" in "".join(warnings(lr_factors=20.0))


def test_finite_nonsense_of_a_learning_rate_far_too_high_is_said_while_training_and_at_its_end(scene, monkeypatch):
    monkeypatch.setattr(watch, "LONG", 20)
    wanted = settings(lr_factors=1e6, steps=40)
    first, last = [e for e in Trainer(Trainer.new_field(scene, wanted), scene, wanted).run() if isinstance(e, Warned)]
    assert first.step == 20 and "20 steps the field has shown the photographs worse than one colour" in first.message
    assert last.step == 40 and "makes no sense" in last.message and "--lr-factors" in last.message


def test_a_run_stopped_between_reports_reports_and_judges_as_one_that_was_not(scene):
    def reports(trainer: Trainer, until: int | None = None) -> list[dict]:
        found = []
        for event in trainer.run():
            if isinstance(event, Progress):
                found.append(dataclasses.asdict(event))
            if isinstance(event, Stepped) and event.step == until:
                break
        timed = ("seconds", "seconds_left", "rays_per_second")
        return [{name: value for name, value in report.items() if name not in timed} for report in found]

    wanted = settings()
    whole, stopped, resumed = (Trainer(Trainer.new_field(scene, wanted), scene, wanted) for _ in range(3))
    expected = reports(whole)
    first = reports(stopped, until=7)
    arrays, plain = stopped.state()
    resumed.load_state({name: np.array(array) for name, array in arrays.items()}, json.loads(json.dumps(plain)))
    assert first + reports(resumed) == expected and len(expected) == 4
    assert resumed.watch.state() == whole.watch.state() and whole.watch.last is not None
    stopped.load_state(*whole.state())
    assert stopped.watch.last == whole.watch.last, "a run that has ended is judged again as it was"


def test_training_that_loses_what_it_knew_goes_back_to_its_best_checkpoint(tmp_path, scene, monkeypatch):
    monkeypatch.setattr(watch, "LONG", 10)
    trainer = started(tmp_path / "run", scene, lr_factors=0.2, steps=80)
    filled = warned = 0
    for event in trainer.run():
        if isinstance(event, Stepped) and trainer.watch.learned and not filled:
            filled = event.step
            trainer.field.density.values[:] = 30.0  # fog, and colours beyond black and white: neither has a gradient
            trainer.field.appearance.values[:] = 1e4
        if isinstance(event, Warned) and filled:
            warned += 1
            assert "worse than one colour" in event.message and trainer.step <= filled < event.step
    assert filled and warned == trainer.setbacks == 1
    assert not trainer.watch.is_lost and trainer.step == 80


def test_a_model_too_large_for_half_precision_is_written_in_single(tmp_path, scene):
    trainer = started(tmp_path / "run", scene)
    train(trainer)
    trainer.field.decoder.params[0] = 1e6
    path = trainer.save_model()
    assert model_file.read_header(path).precision == "float32"
    assert model_file.read(path).decoder["w1"].ravel()[0] == np.float32(1e6)


# Checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory, scene) -> Path:
    """A run that was left at step 15 of 20."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    train(started(folder, scene), until=15)
    return folder


def test_the_newest_the_one_before_and_the_best_are_kept_and_no_more(saved):
    found = {p.name: checkpoint.load(p)[1] for p in saved.glob("*.npz")}
    assert set(found) == {"checkpoint.npz", "checkpoint-before.npz", "checkpoint-best.npz"}
    assert (found["checkpoint.npz"]["step"], found["checkpoint-before.npz"]["step"]) == (15, 10)
    best = max(RunFolder(saved).history(), key=lambda row: row["psnr"])
    assert found["checkpoint-best.npz"]["step"] == best["step"]


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken_and_said(saved, tmp_path, scene):
    shutil.copytree(saved, tmp_path / "run", ignore=shutil.ignore_patterns(run_lock.NAME))
    newest = tmp_path / "run" / "checkpoint.npz"
    newest.write_bytes(newest.read_bytes()[:-5000])
    trainer = Trainer.resume(tmp_path / "run", scene)
    assert trainer.step == 10
    events = train(trainer)
    assert any(isinstance(e, Warned) and "damaged" in e.message and "earlier one" in e.message for e in events)
    newest.write_bytes(b"PK")
    for path in (tmp_path / "run").glob("checkpoint-*.npz"):
        path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        Trainer.resume(tmp_path / "run", scene)


def mutations(arrays: dict[str, np.ndarray], plain: dict) -> list[tuple[str, dict, dict]]:
    """Checkpoints that are whole as files and fit nothing: (what was done, arrays, plain data)."""
    made = []

    def put(what: str, name: str, array: np.ndarray | None) -> None:
        changed = {k: v for k, v in arrays.items() if k != name}
        made.append((what, changed if array is None else changed | {name: array}, plain))

    for name, array in arrays.items():
        put(f"{name} flattened", name, array.reshape(1, -1))
        put(f"{name} cut", name, array[:-1])
        put(f"{name} doubled", name, np.concatenate([array, array]))
        put(f"{name} missing", name, None)
        put(f"{name} of another kind", name, array.astype(np.float64))
        put(f"{name} empty", name, array[:0])
        if array.dtype.kind == "f":
            put(f"{name} of NaN", name, np.full_like(array, np.nan))
    put("one more", "density.p.plane9", np.zeros(3, np.float32))
    put("no pixel used", "sampler.used", np.zeros_like(arrays["sampler.used"]))
    put("pixels that are not there", "sampler.used", np.full_like(arrays["sampler.used"], 0xFFFFFFFF))
    put("a box inside out", "box", arrays["box"][::-1].copy())
    odd = [None, -1, 2**40, 1.5, float("nan"), "text", [], {}, [1, 2, 3], True]
    for name, value in plain.items():
        if name not in ("quality", "setbacks", "watch", "window", "grew"):  # older checkpoints lack them
            made.append((f"no {name}", arrays, {k: v for k, v in plain.items() if k != name}))
        for other in odd:
            if other is None and name in ("quality", "occupancy_cells"):
                continue
            if type(other) is type(value) and name in (
                "grid",
                "grew",
                "metadata",
                "seconds",
                "l1",
                "quality",
                "started",
            ):
                continue
            if (name, other) in (
                ("seconds", 2**40),
                ("l1", 2**40),
                ("quality", -1),
                ("quality", 2**40),
                ("quality", 1.5),
            ):
                continue
            if name in ("seconds", "l1") and other == 1.5:
                continue
            made.append((f"{name} {other!r}", arrays, plain | {name: other}))
    for name in plain["schedule"]:
        for other in ("text", float("nan"), *([10**6] if name != "last_loss" else [])):
            made.append((f"schedule {name} {other}", arrays, plain | {"schedule": plain["schedule"] | {name: other}}))
        made.append((f"schedule without {name}", arrays, plain | {"schedule": {}}))
    for name in plain["sampler"]:
        made.append((f"sampler {name}", arrays, plain | {"sampler": plain["sampler"] | {name: -1}}))
    for name in plain["window"]:
        for other in (None, -1, "text", [1, 2]):
            made.append((f"window {name} {other!r}", arrays, plain | {"window": plain["window"] | {name: other}}))
        made.append(
            (
                f"window without {name}",
                arrays,
                plain | {"window": {k: v for k, v in plain["window"].items() if k != name}},
            )
        )
    made.append(
        ("a window that begins later", arrays, plain | {"window": plain["window"] | {"first": plain["step"] + 1}})
    )
    made.append(("a position past the end", arrays, plain | {"sampler": plain["sampler"] | {"position": 10**9}}))
    made.append(("a grid of thousands", arrays, plain | {"grid": [5000, 5000, 5000]}))
    made.append(("a grid of another shape", arrays, plain | {"grid": plain["grid"][::-1][:2] + [4]}))
    return made


def test_no_array_or_number_of_a_checkpoint_is_believed_unless_it_fits(saved, scene):
    """Each of these made kernels write outside of arrays, or was accepted in silence."""
    arrays, plain = checkpoint.load(saved / "checkpoint.npz")
    wanted = settings()
    trainer = Trainer(Trainer.new_field(scene, wanted), scene, wanted)
    accepted = []
    for what, bad_arrays, bad_plain in mutations(arrays, plain):
        try:
            trainer.load_state(bad_arrays, bad_plain)
            accepted.append(what)
        except ModelFileError:
            pass
    assert not accepted
    trainer.load_state(arrays, plain)
    for _ in trainer.run():
        pass


def test_a_checkpoint_that_would_grow_when_it_is_unpacked_is_refused(saved, tmp_path):
    """1.9 MB of deflated zeros became 1.9 GB."""
    import zipfile

    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(saved / "checkpoint.npz") as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        for info in source.infolist():
            out.writestr(info.filename, source.read(info))
    with pytest.raises(ModelFileError, match="compressed"):
        checkpoint.load(bomb)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"scene": {}, "train": ' + "[" * 100_000, "{}", "[]", '{"scene": {}, "train": {"steps": "3"}}',
     '{"scene": {}, "train": {"steps": true}}', '{"scene": {}, "train": {"field": 3}}',
     '{"scene": {}, "train": {"grow_steps": [1, "2"]}}', '{"scene": {}, "train": {"lr_factors": NaN}}',
     '{"scene": {}, "train": {"grow_steps": 3}}', '{"scene": {}, "train": {"schedule": {"bounds": [1]}}}',
     '{"scene": {}, "train": {"seed": 1e999}}', "\ud800"],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_one_clear_error(tmp_path, text):
    run = RunFolder(tmp_path)
    run.config.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(RunFolderError) as caught:
        run.train_settings()
    assert len(str(caught.value)) < 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "eval.json", "model.slim", "checkpoint.npz"])
def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(saved, tmp_path, name):
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    for words in (["info", copy], ["eval", copy], ["render", copy, "-o", tmp_path / "x.png"]):
        assert f"{name} is neither a file nor a folder" in refused(*words)
    assert f"{name} is neither" in refused("train", "--resume", "--out", copy)


@pytest.mark.parametrize("name", ["metrics.jsonl", "eval.json", "model.slim", "unfinished.slim"])
def test_a_folder_where_a_run_writes_a_file_is_said_before_it_trains(saved, tmp_path, name):
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    (copy / name).unlink(missing_ok=True)
    (copy / name).mkdir()
    said = refused("train", "--resume", "--out", copy)
    assert f"{name} is a folder, and the run writes a file there: move it away" in said
    assert (copy / name).is_dir() and not (copy / "run.lock").exists()
