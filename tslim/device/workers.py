"""Taichi's CPU threads, each kept on a core of its own.

Taichi wakes its threads for every kernel, and Linux often wakes two of them on one core, where the second waits until
the first is done or the scheduler looks again, some milliseconds later: most kernels of a training step are done by
then. Where there are more cores than threads they are left alone, so that the system can move them out of others' way.
"""

import os
from pathlib import Path

_TASKS = Path("/proc/self/task")
_TRIES = 5
_LEAST_WORK = 0.3
"""Share of the longest time that a thread must have run to count as one that ran the kernel."""


def thread_ids() -> set[int]:
    """The system's numbers of this process' threads; empty where it does not say."""
    try:
        return {int(entry.name) for entry in _TASKS.iterdir()}
    except OSError:
        return set()


def keep_apart(candidates: set[int], threads: int) -> bool:
    """Gives each of Taichi's ``threads`` threads, which are among the candidates, a core of its own. Returns whether it
    did.

    Which they are shows in a kernel that keeps all of them busy. What cannot be found out is left as it is.
    """
    if not hasattr(os, "sched_setaffinity") or threads < 2 or len(candidates) < threads:
        return False
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) != threads:
        return False
    try:
        workers = _find(candidates, threads)
        for worker, core in zip(workers, cores, strict=False):
            os.sched_setaffinity(worker, {core})
    except (OSError, ValueError):
        return False
    return bool(workers)


def _find(candidates: set[int], threads: int) -> list[int]:
    """The threads that run Taichi's kernels; none if that cannot be told."""
    import numpy as np

    from kernels.tasks import occupy

    out = np.zeros(threads, np.float32)
    occupy(threads, 1, out)  # compiles it
    for attempt in range(_TRIES):
        before = {thread: _nanoseconds(thread) for thread in candidates}
        occupy(threads, 100_000 << attempt, out)  # for milliseconds
        ran = {thread: _nanoseconds(thread) - before[thread] for thread in candidates}
        workers = [thread for thread in sorted(ran) if ran[thread] > _LEAST_WORK * max(ran.values())]
        if len(workers) == threads:
            return workers
    return []


def _nanoseconds(thread: int) -> int:
    """For how long a thread has run."""
    return int((_TASKS / str(thread) / "schedstat").read_text().split()[0])
