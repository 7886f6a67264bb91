"""Taichi's threads are kept on cores of their own where there are as many as cores, and nothing else is."""

import os

import pytest

from tslim.device import hardware, workers

LOOK = """
import os
from tslim.device import backend
threads = {threads}
all_cores = os.sched_getaffinity(0)
backend.init("cpu", threads=threads)
kept = [os.sched_getaffinity(thread) for thread in map(int, os.listdir("/proc/self/task"))]
alone = [cores for cores in kept if cores != all_cores]
print(len(alone), all(len(cores) == 1 for cores in alone), len(set().union(*alone)))
assert os.sched_getaffinity(0) == all_cores
"""

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not keep threads on cores")
several = pytest.mark.skipif(hardware.cpu_count() < 2, reason="one core")


def started(threads: int) -> list[str]:
    done = hardware.run_python(LOOK.format(threads=threads), timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@linux
@several
def test_each_of_taichis_threads_has_a_core_of_its_own():
    n = hardware.cpu_count()
    assert started(n) == [str(n), "True", str(n)]


@linux
@several
def test_threads_that_leave_cores_free_go_where_the_system_puts_them():
    assert started(1)[0] == "0"


def test_a_system_that_says_nothing_about_threads_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "_TASKS", tmp_path / "nowhere")
    assert workers.thread_ids() == set()
    assert not workers.keep_apart(set(), hardware.cpu_count())
