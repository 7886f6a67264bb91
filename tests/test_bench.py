"""The benchmark measures what it says, keeps every figure that it prints, and leaves what it timed as it was."""

import json
import math
import subprocess
import sys

import pytest

from benchmarks import stages
from benchmarks.machine import Machine
from benchmarks.report import Report
from benchmarks.stages import Counts, Stopwatch, minimal_work


def test_a_stage_inside_another_is_counted_once(monkeypatch):
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(stages.time, "perf_counter", lambda: now)
    watch = Stopwatch()
    inner = watch.around("inner", lambda: spend(0.02))

    def work():
        spend(0.01)
        inner()
        inner()

    watch.around("outer", work)()
    spend(0.015)
    watch.end_step(now)
    # 10 ms of its own, twice 20 ms inside, 15 ms outside any stage.
    assert watch.medians_ms() == pytest.approx({"inner": 40, "outer": 10, "other": 15})


def test_the_roofline_is_the_larger_of_arithmetic_and_traffic():
    machine = Machine(gemm_gflops=100, bandwidth_gbs=20)
    # 10^9 operations at 10^11 a second are 10 ms; 10^8 bytes at 2 10^10 a second are 5 ms.
    assert machine.roofline_ms(1e9, 1e8) == pytest.approx(10)
    assert machine.roofline_ms(1e8, 1e8) == pytest.approx(5)


def test_the_work_of_a_step_is_that_counted_by_hand():
    work = minimal_work(Counts(rays=10, samples=300, used=200, visible=50, groups=50, rank=2, grid=(20, 30, 40)))
    # Decoder, per sample: 2 (150 128 + 128 128 + 128 3) operations, and 12 for each of 30 sines and cosines.
    assert work["decode"].flops == 50 * (2 * (19200 + 16384 + 384) + 360)
    # Its adjoint: the same for the weights, and 2 (135 128 + 128 128 + 128 3) for the inputs.
    assert work["decode adjoint"].flops == 50 * (71936 + 2 * (17280 + 16384 + 384) + 360)
    # Density: 3 modes x 2 components, 10 operations to interpolate and 2 to multiply and add, and 40 a sample.
    assert work["density"].flops == 200 * (6 * 12 + 40)
    # Its texels: 600 + 800 + 1200 + 90 = 2690 a component of 3 planes and 3 lines, fewer than 18 x 200; 2 components.
    assert work["density"].n_bytes == 4 * 2 * 2690 + 4 * 3 * 200
    # Adam moves 8 numbers for each of 2 (1 + 3) 2690 texels, 18 x 27 of the basis and 35968 of the decoder.
    assert work["update"].n_bytes == 4 * 8 * (8 * 2690 + 18 * 27 + 35968)


def test_every_figure_that_is_printed_is_kept(tmp_path, capsys):
    report = Report()
    report.table("step", "A step", [{"stage": "march", "ms": 1.5}])
    report.ratio("twin_over_ours", "the twin over ours", 21.54321, 20)
    path = tmp_path / "out" / "bench.json"
    report.write(path)
    found = json.loads(path.read_text())
    assert found == {"ratio": {"twin_over_ours": 21.543}, "step": [{"stage": "march", "ms": 1.5}]}
    printed = capsys.readouterr().out
    assert "march" in printed and "1.5" in printed and "21.54" in printed and "at least 20" in printed


@pytest.mark.slow
def test_the_benchmark_runs_from_a_bare_checkout(root, tmp_path):
    out = tmp_path / "bench.json"
    command = [sys.executable, "apps/bench.py", "--only", "step", "twin", "--grids", "32", "--steps", "2", "--rounds",
               "1", "--warm-steps", "30", "--json", str(out)]  # fmt: skip
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(out.read_text())
    assert figures["machine"][0]["GEMM GFLOP/s"] > 0
    stages = {row["stage"]: row["ms"] for row in figures["step_32_rank16"]}
    accounted = sum(ms for name, ms in stages.items() if name != "whole step")
    assert accounted == pytest.approx(stages["whole step"])
    assert all(stages[name] > 0 for name in ("march", "density", "decode", "decode adjoint", "update"))
    assert figures["ratio"]["twin_over_ours_32_rank16"] == pytest.approx(figures["twin"][0]["ratio, paper"], abs=1e-3)


@pytest.mark.long
def test_the_check_of_a_device_does_all_its_parts(root, tmp_path):
    words = ["apps/device_check.py", "--arch", "cpu", "--tiny", "--patience", "8", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "device-check.json").read_text())
    parity, tests = "training, beside the CPU's", "kernels and gradients"
    assert {"describe", tests, parity, "built-in scene", "step, beside PyTorch's", "quick", "paper"} <= set(found)
    assert not [name for name, part in found.items() if isinstance(part, dict) and "error" in part], found
    assert found[parity]["within"] and "passed" in found[tests]["said"]
    page = (tmp_path / "device-check.md").read_text()
    assert "| paper | built-in: " in page and "on the CPU: as good |" in page and "went wrong" not in page


def test_the_page_of_a_device_check_says_what_failed_and_what_was_found(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "apps"))
    import device_check

    trained = {
        "seconds_in_all": 30.2, "scene": "built-in", "steps": 340, "of": 3400, "seconds": 9.0, "ms_per_step": 12.34,
        "minutes_of_all_steps": 0.7, "psnr_after_these": 27.1, "ms_per_frame": 6.0, "array_bytes": 52_000_000,
        "memory": 700_000_000,
    }  # fmt: skip
    parity = device_check._parity(
        [{"values": [18.0, 19.0], "seconds_in_all": 3}, {"values": [18.1], "seconds_in_all": 4}]
    )
    found = {
        "arch": "cuda", "tiny": False, "version": "1", "quick": trained, "training": parity,
        "paper": {**trained, "steps": 120, "asked": 300, "of": 30_000, "minutes_of_all_steps": None},
        "paper on x": {**trained, "minutes_of_all_steps": None, "steps": 9, "asked": 300, "ms_per_frame": None},
        "describe": {
            "device": "A GPU", "notes": ["slow", "hot"], "gradients": "right",
            "versions": {"tslim": "1", "taichi": "1.7.4"},
        },
        "kernels and gradients": {"error": "not done within 140 s"},
        "step": {
            "twin_runs_on": "cuda", "ours_ms": 2.0, "twin_ms": 8.0, "ratio": 4.0, "seconds_in_all": 40.0,
            "warm_steps": 31, "warm_steps_asked": 400,
        },
    }  # fmt: skip
    page = device_check.markdown(found)
    assert page.startswith("# tslim on A GPU (cuda)\n\ntslim 1, taichi 1.7.4.")
    assert "| quick | built-in: 12.3 ms a step, 0.7 minutes for all 3400 steps (from 340, after which" in page
    assert "12.3 ms a step, stopped for want of time after 120, after which it has 27.10 dB, before the 300" in page
    assert "after 9, before the 300 in which its grid has grown, no picture in time, arrays of 52 MB" in page
    assert "\n\nSaid at its start: slow; hot.\n\nIts gradients are right." in page
    assert "arrays of 52 MB, 700 MB in use on the GPU | 30 |" in page
    assert "| training | 18.10 dB, 18.50 on the CPU: **not as good** | 7 |" in page
    assert "PyTorch's on cuda 8.0: 4.0 times as long (of a field after 31 steps, for want of time, instead" in page
    assert (
        "| kernels and gradients | **failed** |  |" in page and "- kernels and gradients: not done within 140 s" in page
    )


def test_the_parts_of_a_device_check_share_eight_minutes(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "apps"))
    import device_check

    now = 0.0
    monkeypatch.setattr(device_check.time, "monotonic", lambda: now)
    clock = device_check.Clock(patience=1)
    for name, limit in device_check.LIMITS.items():
        given = clock.seconds_for(name)
        assert given >= limit, "what a part leaves, the next have"
        now += given if name == "paper" else limit / 2
    assert now <= 480


def test_a_part_of_a_device_check_that_is_stopped_keeps_what_it_had_said(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "apps"))
    import device_check

    monkeypatch.setattr(device_check, "LIMITS", {"quick": 2.0})
    said = device_check.part(
        "quick", ["-uc", "print('{}\\n{\"steps\": 3}', flush=True); import time; time.sleep(9)"], device_check.Clock(1)
    )
    assert said == {"seconds_in_all": 2.0, "steps": 3}
    silent = device_check.part("quick", ["-c", "import time; time.sleep(9)"], device_check.Clock(0.1))
    assert silent["error"].startswith("not done within 0 s")


@pytest.mark.slow
def test_a_part_of_a_device_check_that_has_no_time_does_less_and_says_so():
    from benchmarks import device

    done = device.train("cpu", None, True, device.Clock(0.0), "quick")
    assert (done["steps"], done["minutes_of_all_steps"]) == (1, None) and done["asked"] == 12
    assert done["ms_per_frame"] > 0 and math.isfinite(done["psnr_after_these"])
