"""Everything worth knowing of tslim on a device, in under eight minutes: ``python apps/device_check.py --arch cuda``.

Kernel and gradient tests, training beside the CPU's, a step beside the torch twin's on the same device, the presets
quick and paper (shortened and extrapolated), and memory. Leaves ``device-check.json`` and ``device-check.md``: please
send them to the project. What fails or takes too long is written down, and the rest goes on.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import _checkout  # noqa: F401
import tyro

import tslim
from benchmarks import device
from tslim import cli, files

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("march", "spaces", "composite", "adam", "field", "gradients_field", "gradients_pipeline", "differentiable")
LIMITS = {
    "describe": 30, "scene": 30, "tests": 140, "cpu": 35, "same": 50, "twin": 70, "quick": 55, "paper": 70,
}  # fmt: skip
"""Seconds that each part may take, and with them those that the parts before it left: eight minutes together."""
MEASURE = ["-m", "benchmarks.device"]
PARITY = 0.1
"""dB between training on the device and on the CPU, at most."""


@dataclass(frozen=True)
class Options:
    """What the check can be told."""

    arch: Literal["cuda", "vulkan", "cpu"] = "cuda"
    """device to check"""
    scene: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """photographs of an object to train on as well, such as Lego of NeRF-synthetic"""
    out: Path = Path("runs/device-check")
    """folder for device-check.json and device-check.md"""
    patience: float = 1.0
    """how many times as long each part may take as it should, for machines that are slow or busy"""
    tiny: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """next to nothing of each part: to see that the check itself works"""


class Clock:
    """Gives each part the time that it may take, which is ``patience`` times its limit and whatever is left over."""

    def __init__(self, patience: float) -> None:
        self._patience, self._until = patience, time.monotonic()

    def seconds_for(self, name: str) -> float:
        """What a part may take that begins now."""
        self._until += LIMITS[name] * self._patience
        return self._until - time.monotonic()


def part(name: str, words: list[str], clock: Clock, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What a process says in its last line, as json if it is; or why it said nothing.

    Of a process that has to be stopped, what it had said in json by then.
    """
    print(f"{name} ...", flush=True)
    limit = clock.seconds_for(name)
    if words[:2] == MEASURE:
        words = [*words, f"--seconds={limit:.0f}"]
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired as stopped:
        with contextlib.suppress(ValueError, IndexError):
            said = json.loads((stopped.stdout or b"").splitlines()[-1])
            if isinstance(said, dict):
                return {"seconds_in_all": round(limit, 1), **said}
        return {"error": f"not done within {limit:.0f} s (--patience 3 gives every part three times as long)"}
    lines = [line for line in (done.stdout + done.stderr if done.returncode else done.stdout).splitlines() if line]
    found: dict[str, Any] = {"seconds_in_all": round(time.perf_counter() - began, 1)}
    try:
        result = json.loads(lines[-1])
        return found | (result if isinstance(result, dict) else {"values": result})
    except (ValueError, IndexError):
        result = lines[-1] if lines else f"exit code {done.returncode}"
        return found | ({"said": result} if done.returncode == 0 else {"error": result, "last lines": lines[-12:]})


def markdown(found: dict[str, Any]) -> str:
    """The same for people: a line a part; all numbers are in the json."""
    head = found["describe"]
    versions = ", ".join(f"{name} {version}" for name, version in head.get("versions", {}).items())
    lines = [f"# tslim on {head.get('device', 'an unknown device')} ({found['arch']})", "", versions + ".", ""]
    if found["tiny"]:
        lines += ["Next to nothing of each part (`--tiny`): these numbers say nothing of the device.", ""]
    if head.get("notes"):
        lines += [f"Said at its start: {'; '.join(head['notes'])}.", ""]
    lines += [f"Its gradients are {head.get('gradients', 'not known')}.", "", "| part | what was found | seconds |"]
    lines += ["| --- | --- | --- |"]
    for name, result in found.items():
        if isinstance(result, dict) and name != "describe":
            seconds = f"{result['seconds_in_all']:.0f}" if "seconds_in_all" in result else ""
            lines.append(f"| {name} | {_words(name, result)} | {seconds} |")
    problems = [f"- {name}: {result['error']}" for name, result in found.items() if _failed(result)]
    lines += ["", "What went wrong:", "", *problems] if problems else []
    return "\n".join([*lines, ""])


def _failed(result: Any) -> bool:
    return isinstance(result, dict) and "error" in result


def _words(name: str, result: dict[str, Any]) -> str:
    """What a part found, in a sentence."""
    if _failed(result):
        return "**failed**"
    if "said" in result:
        return str(result["said"])
    if "apart_db" in result:
        verdict = "as good" if result["within"] else "**not as good**"
        return f"{result['device_db']:.2f} dB, {result['cpu_db']:.2f} on the CPU: {verdict}"
    if "twin_ms" in result:
        done, of = result["warm_steps"], result["warm_steps_asked"]
        young = "" if done >= of else f" (of a field after {done} steps, for want of time, instead of {of})"
        return (
            f"a step takes {result['ours_ms']:.1f} ms, PyTorch's on {result['twin_runs_on']} {result['twin_ms']:.1f}: "
            f"{result['ratio']:.1f} times as long{young}"
        )
    used = "" if result["memory"] is None else f", {result['memory'] / 1e6:.0f} MB in use on the GPU"
    seen, picture = "", "no picture in time"
    if result["ms_per_frame"] is not None:
        seen = f", after which it has {result['psnr_after_these']:.2f} dB"
        picture = f"{result['ms_per_frame']:.0f} ms a picture"
    so_far = f"{result['steps']}{seen}"
    if result["minutes_of_all_steps"] is None:
        steps = f"stopped for want of time after {so_far}, before the {result['asked']} in which its grid has grown"
    else:
        steps = f"{result['minutes_of_all_steps']:.1f} minutes for all {result['of']} steps (from {so_far})"
    return (
        f"{result['scene']}: {result['ms_per_step']:.1f} ms a step, {steps}, {picture}, "
        f"arrays of {result['array_bytes'] / 1e6:.0f} MB{used}"
    )


def main(args: Options) -> None:
    """Does all parts, and writes what was found."""
    more, arch, clock = ["--tiny"] if args.tiny else [], args.arch, Clock(args.patience)
    found: dict[str, Any] = {"arch": arch, "tiny": args.tiny, "version": tslim.__version__}
    found["describe"] = part("describe", [*MEASURE, "describe", arch], clock)
    if "error" in found["describe"]:
        raise tslim.BackendError(f"{arch} does not start: {found['describe']['error']}")
    names = TESTS[3:4] if args.tiny else TESTS
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in names)]
    found["kernels and gradients"] = part("tests", words, clock, {"TSLIM_TEST_ARCH": arch})
    tasks = {"cpu": "cpu", "same": arch}
    found["training, beside the CPU's"] = _parity(
        [part(name, ["tests/gpu_training.py", on], clock) for name, on in tasks.items()]
    )
    with tempfile.TemporaryDirectory() as folder:
        found["built-in scene"], builtin = _builtin_scene(Path(folder), more, clock)
        found["step, beside PyTorch's"] = part("twin", [*MEASURE, "twin", arch, *builtin, *more], clock)
        places = {"": builtin} | ({f" on {args.scene.name}": [str(args.scene.resolve())]} if args.scene else {})
        for where, place in places.items():
            for preset in device.SHORT:
                found[preset + where] = part(preset, [*MEASURE, preset, arch, *place, *more], clock)
    text = json.dumps(found, indent=2) + "\n"
    for name, page in (("device-check.json", text), ("device-check.md", markdown(found))):
        print(files.write_bytes(args.out / name, page.encode()))


def _builtin_scene(folder: Path, more: list[str], clock: Clock) -> tuple[dict[str, Any], list[str]]:
    """Makes the built-in scene on the CPU, once for all parts; returns what was said, and the word that names it."""
    path = str(folder / device.BUILTIN)
    said = part("scene", [*MEASURE, "scene", "cpu", path, *more], clock)
    return said, [] if _failed(said) else [path]


def _parity(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean quality of the same small training on both, and whether it is the same."""
    try:
        means = [sum(one["values"]) / len(one["values"]) for one in trained]
    except KeyError:
        return {"error": next(one["error"] for one in trained if "error" in one)}
    apart = abs(means[0] - means[1])
    seconds = sum(one["seconds_in_all"] for one in trained)
    return {
        "seconds_in_all": seconds, "cpu_db": means[0], "device_db": means[1], "apart_db": apart,
        "within": apart < PARITY,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options))
