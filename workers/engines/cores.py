"""How many cores this process may really use, and how several processes divide them.

A container's limit is no affinity: the process sees every core of the host and is put to sleep once its quota is spent,
so as many threads as cores would spend most of their time waiting for one another.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one of several processes gets."""

    cores: tuple[int, ...]
    """The cores it may run on, by number."""
    threads: int
    """How many threads keep them busy; fewer than the cores where a quota allows less."""


def usable_cores() -> int:
    """How many cores this process can keep busy: its affinity, or less where a cgroup's quota is smaller; at least 1.

    A cpuset needs no look of its own, since the kernel keeps every affinity within it.
    """
    return _within(len(os.sched_getaffinity(0)), cpu_quota(_read(OWN_CGROUPS) or "", CGROUPS))


def shares(children: int) -> list[Share]:
    """The cores of this process, divided among so many children; see `divide`."""
    return divide(sorted(os.sched_getaffinity(0)), usable=usable_cores(), children=children)


def divide(cores: Sequence[int], *, usable: int, children: int) -> list[Share]:
    """Neighbouring cores for each child, as equal as they come; where there are more children than cores, they share.

    Neighbours, because they share caches and the memory of one socket.
    """
    threads = max(1, usable // children)
    if children > len(cores):
        return [Share(cores=(cores[number % len(cores)],), threads=1) for number in range(children)]
    bounds = [number * len(cores) // children for number in range(children + 1)]
    return [Share(cores=tuple(cores[start:end]), threads=min(threads, end - start)) for start, end in pairwise(bounds)]


def cpu_quota(own_cgroups: str, root: Path) -> float | None:
    """Cores' worth of time that the cgroups of a process allow it; None where they set no limit.

    Args:
        own_cgroups: The text of its `/proc/<pid>/cgroup`.
        root: Where the cgroup file systems are mounted.
    """
    quotas = [quota for folder in _folders(own_cgroups, root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def quota_v2(cpu_max: str) -> float | None:
    """Cores allowed by `cpu.max`, such as `150000 100000`; None for `max 100000`."""
    quota, _, period = cpu_max.strip().partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def quota_v1(quota_us: str, period_us: str) -> float | None:
    """Cores allowed by `cpu.cfs_quota_us` and `cpu.cfs_period_us`; None for a quota of -1."""
    quota = int(quota_us)
    return None if quota < 0 else quota / int(period_us)


def _within(cores: int, quota: float | None) -> int:
    """The cores that a quota leaves, to the nearest whole one: half a core more is worth a thread, a tenth is not."""
    return cores if quota is None else max(1, min(cores, math.floor(quota + 0.5)))


def _folders(own_cgroups: str, root: Path) -> Iterator[Path]:
    """The folders whose limits hold for the process: its cgroup and those around it.

    Inside a container the path is often the host's and is not there; the mount itself is then the container's cgroup.
    """
    for line in own_cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has no controllers here. Beside version 1 it is mounted in a folder of its own.
        mounts = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        for mount in mounts:
            here = mount / path.lstrip("/")
            yield from (folder for folder in (here, *here.parents) if folder.is_relative_to(mount))


def _quota_of(folder: Path) -> float | None:
    if (cpu_max := _read(folder / "cpu.max")) is not None:
        return quota_v2(cpu_max)
    quota_us, period_us = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return None if quota_us is None or period_us is None else quota_v1(quota_us, period_us)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None
