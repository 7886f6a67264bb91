"""What runs the trainings of a sweep: Ray, on this machine or a cluster; or an array of SLURM jobs."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tslim import files, optional
from tslim.errors import ConfigError
from tslim.sweeps.plan import Plan, Run
from tslim.sweeps.single import perform

RETRIES = 10
"""How often Ray starts a training again whose node was lost; it goes on from its last checkpoint."""


@dataclass(frozen=True)
class Finished:
    """A training that has come to an end."""

    run: Run
    problem: str
    """what went wrong, in one line; empty if nothing did"""


def run_on_ray(
    plan: Plan, runs: list[Run], *, address: str | None, cpus: int | None, gpus: float, arch: str
) -> Iterator[Finished]:
    """Runs trainings as Ray tasks; yields each when it has come to an end. Folders must be the same on all nodes.

    Args:
        address: of a Ray cluster; None starts one on this machine, or joins the one that was started before.
        cpus: cores that a training takes, and its threads; all of a node's if None.
        gpus: that a training takes.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigError: no cluster answers there, or none of its nodes has what a training takes.
    """
    ray = optional.need("ray", "a sweep", "pip install 'ray>=2.9'")
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster at {address}: {str(error).splitlines()[0][:200]}") from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {"CPU": float(cpus or min(int(node.get("CPU", 1)) for node in nodes)), "GPU": float(gpus)}
    if not any(all(node.get(kind, 0) >= n for kind, n in needs.items()) for node in nodes):
        raise ConfigError(f"no node has {needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs: there are {nodes}")
    task = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=RETRIES, max_calls=1)(perform)
    waiting = {task.remote(plan, run, arch, cpus): run for run in runs}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        run = waiting.pop(done)
        try:
            problem = ray.get(done)
        except ray.exceptions.RayError as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        yield Finished(run, problem)


def write_slurm(plan: Plan, path: Path, *, arch: str) -> Path:
    """Writes a SLURM batch file that runs the plan as an array of jobs. Raises ``RunFolderError`` where it cannot."""
    command = [sys.executable, "-m", "tslim", "sweep", str(plan.source), "--arch", arch]
    text = "\n".join(
        (
            "#!/bin/bash",
            f"# {len(plan.runs)} trainings of {plan.source.name}; submit with: sbatch {path.name}",
            f"#SBATCH --job-name={plan.source.stem}",
            f"#SBATCH --array=0-{len(plan.runs) - 1}",
            f"#SBATCH --output={plan.out}/slurm-%a.log",
            "#SBATCH --requeue",
            *(["#SBATCH --gres=gpu:1"] if arch in ("cuda", "vulkan") else []),
            f"{shlex.join(command)} --only $SLURM_ARRAY_TASK_ID",
            "",
        )
    )
    plan.out.mkdir(parents=True, exist_ok=True)
    return files.write_bytes(path, text.encode())
