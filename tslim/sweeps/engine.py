"""What runs the trainings of a sweep: Ray, on this machine or a cluster; or an array of SLURM jobs.

Where Ray is missing, this process runs them, one after another.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tslim import files, optional
from tslim.errors import ConfigError
from tslim.sweeps.plan import Plan, Training
from tslim.sweeps.single import perform, python_path

INSTALL = "pip install 'ray>=2.9'"
RETRIES = 10
"""How often Ray starts a training again whose node was lost; it goes on from its last checkpoint."""


@dataclass(frozen=True)
class Finished:
    """A training that has come to an end."""

    run: Training
    problem: str
    """what went wrong, in one line; empty if nothing did"""


@dataclass(frozen=True)
class Place:
    """Where trainings run, and what each of them takes there."""

    address: str | None = None
    """of a Ray cluster; None starts one on this machine, or joins the one that was started before"""
    cpus: int | None = None
    """cores that a training takes, and its threads; all of a node's if None"""
    gpus: float = 0.0
    """that a training takes"""
    arch: str = "auto"
    """its device"""

    def needs_ray(self) -> bool:
        """Whether it asks for what only Ray does: another machine, or several trainings at a time."""
        return self.address is not None or self.cpus is not None or self.gpus > 0


def uses_ray(place: Place) -> bool:
    """Whether trainings run on Ray: where it is installed, or where they ask for what only it does."""
    return place.needs_ray() or optional.has("ray")


def run(plan: Plan, runs: Sequence[Training], place: Place) -> Iterator[Finished]:
    """Runs trainings; yields each when it has come to an end.

    On Ray, or in this process where Ray is neither installed nor needed. Raises as ``run_on_ray``.
    """
    if uses_ray(place):
        yield from run_on_ray(plan, runs, place)
        return
    for training in runs:
        yield Finished(training, perform(plan, training, place.arch))


def run_on_ray(plan: Plan, runs: Sequence[Training], place: Place) -> Iterator[Finished]:
    """The same as Ray tasks. Folders must be the same on all nodes.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigError: no cluster answers there, or none of its nodes has what a training takes.
    """
    ray = optional.need("ray", "a sweep", INSTALL)
    if not ray.is_initialized():
        try:
            ray.init(
                address=place.address, log_to_driver=False, logging_level="ERROR", include_dashboard=False,
                runtime_env={"env_vars": {"PYTHONPATH": python_path()}},
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster at {place.address}: {str(error).splitlines()[0][:200]}") from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {"CPU": float(place.cpus or min(int(node.get("CPU", 1)) for node in nodes)), "GPU": float(place.gpus)}
    if not any(all(node.get(kind, 0) >= n for kind, n in needs.items()) for node in nodes):
        raise ConfigError(f"no node has {needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs: there are {nodes}")
    task = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=RETRIES, max_calls=1)(perform)
    waiting = {task.remote(plan, each, place.arch, place.cpus): each for each in runs}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        ended = waiting.pop(done)
        try:
            problem = ray.get(done)
        except ray.exceptions.RayError as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        yield Finished(ended, problem)


def write_slurm(plan: Plan, path: Path, *, arch: str) -> Path:
    """Writes a SLURM batch file that runs the plan as an array of jobs. Raises ``RunFolderError`` where it cannot."""
    command = [sys.executable, "-m", "tslim", "sweep", str(plan.source), "--arch", arch]
    text = "\n".join(
        (
            "#!/bin/bash",
            f"# {len(plan.runs)} trainings of {plan.source.name}; submit with: sbatch {path.name}",
            f'#SBATCH --job-name="{plan.source.stem}"',
            f"#SBATCH --array=0-{len(plan.runs) - 1}",
            f'#SBATCH --output="{plan.out}/slurm-%a.log"',
            "#SBATCH --requeue",
            *(["#SBATCH --gres=gpu:1"] if arch in ("cuda", "vulkan") else []),
            f"{shlex.join(command)} --only $SLURM_ARRAY_TASK_ID",
            "",
        )
    )
    plan.out.mkdir(parents=True, exist_ok=True)
    return files.write_bytes(path, text.encode())
