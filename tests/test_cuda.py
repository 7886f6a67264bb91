"""Every kernel compiles for CUDA, shown without a GPU: Taichi compiles for a stand-in of the driver, ptxas assembles.

What kernels compute is proven elsewhere (``test_gpu.py``), where there is a device.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent / "cuda"
FOR_CPU_ALONE = {
    "occupy": "keeps CPU threads busy, to see on which cores they run",
    "density_backward": "each thread owns what it writes; a GPU has density_backward_atomic",
    "appearance_backward": "as density_backward",
}
ARCHS = ("sm_80", "sm_90")


@dataclass(frozen=True)
class Compiled:
    """What the workload left."""

    modules: list[Path]
    log: list[str]

    def kernels(self) -> set[str]:
        """Names of the Python functions that were compiled."""
        found = set()
        for module in self.modules:
            for name in re.findall(r"\.entry (\w+)\(", module.read_text()):
                kernel = re.fullmatch(r"(\w+)_c\d+_\d+_kernel_\d+_\w+", name)
                if kernel:
                    found.add(kernel[1])
        return found


@pytest.fixture(scope="module")
def compiled(root, tmp_path_factory) -> Compiled:
    """Everything that tslim launches, compiled for CUDA."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler (cc)")
    folder = tmp_path_factory.mktemp("cuda")
    library = folder / "libcuda.so.1"
    flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror")
    subprocess.run([compiler, *flags, "-o", str(library), str(HERE / "fake_libcuda.c")], check=True, timeout=60)
    (folder / "libcuda.so").symlink_to(library.name)
    out = folder / "out"
    out.mkdir()
    env = {
        **os.environ, "PYTHONPATH": str(root), "LD_LIBRARY_PATH": str(folder), "FAKE_CUDA_DIR": str(out),
        "TI_OFFLINE_CACHE_FILE_PATH": str(folder / "cache"),
    }  # fmt: skip
    words = [sys.executable, str(HERE / "workload.py")]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Compiled(sorted(out.glob("*.ptx")), (out / "log").read_text().splitlines())


def kernels_of_ours(root: Path) -> set[str]:
    """Names of all functions that are kernels."""
    names = set()
    for path in (root / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
                if marks & {"kernel", "vector_kernel"}:
                    names.add(node.name)
    return names


def test_every_kernel_is_compiled_for_cuda(compiled, root):
    ours = kernels_of_ours(root)
    assert len(ours) > 60 and set(FOR_CPU_ALONE) <= ours
    assert not ours - compiled.kernels() - set(FOR_CPU_ALONE), "tests/cuda/workload.py does not come to them"


@pytest.mark.parametrize("arch", ARCHS)
def test_ptxas_assembles_every_module(compiled, arch):
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("needs ptxas: pip install nvidia-cuda-nvcc-cu12")

    def assemble(module: Path) -> str:
        words = [ptxas, f"-arch={arch}", "-o", os.devnull, str(module)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        return "" if done.returncode == 0 else f"{module.name}: {done.stdout}{done.stderr}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [said for said in pool.map(assemble, compiled.modules) if said]
    assert not wrong, "\n".join(wrong[:3])
    assert len(compiled.modules) > 60


def test_a_step_waits_for_the_device_no_more_often_than_docs_gpu_says(compiled):
    # How many samples, how many are visible in how many groups, how many samples unseen cameras' rays have; and in
    # the first step opacities, what each rank learns at and the losses of a report.
    begins = [i for i, line in enumerate(compiled.log) if re.match(r"launch training_rays_\w+range_for", line)]
    step = compiled.log[begins[1] : begins[2]]
    ends = max(i for i, line in enumerate(step) if line.startswith("launch adam_flat"))
    reads = [line for line in step[:ends] if line.startswith("read")]
    assert reads.count("read 4") == 2 and reads.count("read 8") == 1 and len(reads) <= 7, reads


def find_ptxas() -> str | None:
    """NVIDIA's assembler, from PATH or from the package of pip's."""
    found = shutil.which("ptxas")
    if found is None and importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cuda_nvcc"):
        for place in importlib.util.find_spec("nvidia.cuda_nvcc").submodule_search_locations:
            found = shutil.which("ptxas", path=str(Path(place) / "bin")) or found
    return found
