"""Everything worth knowing of tslim on a device, in under eight minutes: ``python apps/device_check.py --arch cuda``.

Kernel and gradient tests, training beside the CPU's, a step beside the torch twin's on the same device, the presets
quick and paper (shortened and extrapolated), and memory. Leaves ``device-check.json`` and ``device-check.md``: please
send them to the project. What fails or takes too long is written down, and the rest goes on.
"""

import json
import os
import subprocess
import sys
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
LIMITS = {"describe": 60, "tests": 150, "cpu": 40, "same": 60, "twin": 75, "quick": 60, "paper": 75}
"""Seconds that each part may take."""
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


def part(name: str, words: list[str], patience: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What a process says in its last line, as json if it is; or why it said nothing."""
    print(f"{name} ...", flush=True)
    limit = LIMITS[name] * patience
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {limit:.0f} s"}
    lines = [line for line in (done.stdout + done.stderr if done.returncode else done.stdout).splitlines() if line]
    found: dict[str, Any] = {"seconds_in_all": round(time.perf_counter() - began, 1)}
    try:
        result = json.loads(lines[-1])
        return found | (result if isinstance(result, dict) else {"values": result})
    except (ValueError, IndexError):
        result = lines[-1] if lines else f"exit code {done.returncode}"
        return found | ({"said": result} if done.returncode == 0 else {"error": result, "last lines": lines[-12:]})


def markdown(found: dict[str, Any]) -> str:
    """The same for people."""
    head = found["describe"]
    lines = [f"# tslim on {head.get('device', 'an unknown device')} ({found['arch']})", ""]
    for name, result in found.items():
        if isinstance(result, dict):
            lines += [f"## {name}", "", "| | |", "| --- | --- |"]
            lines += [f"| {key} | {_text(value)} |" for key, value in result.items()] + [""]
    return "\n".join(lines)


def _text(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def main(args: Options) -> None:
    """Does all parts, and writes what was found."""
    more, arch, slow = ["--tiny"] if args.tiny else [], args.arch, args.patience
    measure = ["-m", "benchmarks.device"]
    found: dict[str, Any] = {"arch": arch, "tiny": args.tiny, "version": tslim.__version__}
    found["describe"] = part("describe", [*measure, "describe", arch], slow)
    if "error" in found["describe"]:
        raise tslim.BackendError(f"{arch} does not start: {found['describe']['error']}")
    names = TESTS[3:4] if args.tiny else TESTS
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in names)]
    found["tests"] = part("tests", words, slow, {"TSLIM_TEST_ARCH": arch})
    tasks = {"cpu": "cpu", "same": arch}
    found["same as the CPU"] = _parity([part(name, ["tests/gpu_training.py", on], slow) for name, on in tasks.items()])
    found["twin"] = part("twin", [*measure, "twin", arch, *more], slow)
    for scene in [None, *([args.scene] if args.scene else [])]:
        for preset in device.SHORT:
            name, place = (preset, []) if scene is None else (f"{preset} on {scene.name}", [str(scene.resolve())])
            found[name] = part(preset, [*measure, preset, arch, *place, *more], slow)
    text = json.dumps(found, indent=2) + "\n"
    for name, page in (("device-check.json", text), ("device-check.md", markdown(found))):
        print(files.write_bytes(args.out / name, page.encode()))


def _parity(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean quality of the same small training on both, and whether it is the same."""
    try:
        means = [sum(one["values"]) / len(one["values"]) for one in trained]
    except KeyError:
        return {"error": next(one["error"] for one in trained if "error" in one)}
    apart = abs(means[0] - means[1])
    return {"cpu_db": means[0], "device_db": means[1], "apart_db": apart, "within": apart < PARITY}


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options))
