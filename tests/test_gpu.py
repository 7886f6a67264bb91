"""The same kernels on other archs, each in a process of its own: Vulkan (Mesa's lavapipe counts) and CUDA.

Skips an arch that this machine has no device for.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tslim.device import hardware

KERNEL_TESTS = (
    "launch",
    "rays",
    "spaces",
    "march",
    "composite",
    "adam",
    "field",
    "gradients_field",
    "gradients_pipeline",
    "differentiable",
    "torch",
)


def run(words: list[str], root, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **env},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_kernel_and_gradient_test_passes_on_a_gpu_too(gpu, root):
    files = [f"tests/test_{name}.py" for name in KERNEL_TESTS]
    printed = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *files], root, TSLIM_TEST_ARCH=gpu)
    passed = int(printed.strip().splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed >= 60, printed[-500:]


@pytest.mark.slow
def test_a_gpu_trains_as_well_as_the_cpu(gpu, root):
    script = str(root / "tests" / "gpu_training.py")
    cpu, other = (np.array(json.loads(run([script, arch], root).splitlines()[-1])) for arch in ("cpu", gpu))
    assert cpu.mean() > 17, "the training has learned something"
    assert abs(cpu.mean() - other.mean()) < 0.1


@pytest.mark.slow
def test_a_step_on_a_gpu_waits_twice_for_the_device(gpu, root):
    # Once for the number of samples, once for those of visible samples and groups; unseen cameras' rays have samples
    # of their own. Ranks are sent where they are not those of the step before.
    printed = run([str(root / "tests" / "gpu_readbacks.py"), gpu], root)
    found = json.loads(printed.splitlines()[-1])
    assert found == {
        "fixed": {"reads": 2}, "staged": {"reads": 2, "writes": 1}, "fixed unseen_occlusion": {"reads": 3},
        "fixed point_depth": {"reads": 3},
    }  # fmt: skip


def test_a_gpu_starts_with_right_gradients_and_says_what_it_is(gpu, root):
    printed = run(["-c", f"import tslim\nb = tslim.init({gpu!r})\nb.require_gradients()\nprint(b)"], root)
    name = hardware.ask(f"{gpu}_devices")[0]["name"]
    assert printed.startswith(f"{gpu}: ")
    assert name in printed or len(hardware.ask(f"{gpu}_devices")) > 1
    if "llvmpipe" in printed:
        assert "a software device" in printed
