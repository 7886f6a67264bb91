"""How much memory there is, asked before allocating much of it."""

import os
from pathlib import Path

from tslim.errors import OutOfMemoryError


def available() -> int | None:
    """Bytes that this process may still use without pushing anything out, or None where the system does not say.

    The smaller of what the machine has free and what the process's control group (a container) leaves it.
    """
    bounds = [b for b in (_machine(), _group_v2(), _group_v1()) if b is not None]
    return max(min(bounds), 0) if bounds else None


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _group_v2() -> int | None:
    return _group_memory_left(
        "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"
    )


def _group_v1() -> int | None:
    folder = "/sys/fs/cgroup/memory/memory"
    return _group_memory_left(f"{folder}.limit_in_bytes", f"{folder}.usage_in_bytes", f"{folder}.stat")


def _group_memory_left(limit: str, usage: str, statistics: str) -> int | None:
    """The group's limit less its use; file cache that the system would give back does not count as use."""
    try:
        allowed = int(Path(limit).read_text())
        used = int(Path(usage).read_text())
        stats = dict(line.split() for line in Path(statistics).read_text().splitlines())
    except (OSError, ValueError):
        return None
    return allowed - used + int(stats.get("inactive_file", 0))


def require(needs: dict[str, int], lower: str) -> None:
    """Raises ``OutOfMemoryError`` if the bytes in ``needs`` (by purpose) exceed what is there.

    Args:
        needs: bytes by purpose.
        lower: what the user can lower, for the message.
    """
    have = available()
    total = sum(needs.values())
    if have is not None and total > have:
        parts = ", ".join(f"{name} {n / 1e6:.0f} MB" for name, n in needs.items())
        raise OutOfMemoryError(
            f"this needs {total / 1e6:.0f} MB ({parts}) but {have / 1e6:.0f} MB are free: try {lower}"
        )
