"""What a worker takes is what it has for itself, and its share of what it shares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagging.errors import SettingsError
from workers import memory
from workers.memory import memory_mb, require_room

MAPS_A_FILE = """
import mmap, sys
with open(sys.argv[1], "rb") as f:
    mapped = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    sum(mapped[::4096])
    print("mapped", flush=True)
    sys.stdin.read()
"""
KEEPS = "kept = b'x' * (64 * 2**20); print('kept', flush=True); import sys; sys.stdin.read()"


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """A Python that has done what it was told and waits."""
    process = subprocess.Popen([sys.executable, "-c", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(2**20) * 64)
    return path


def test_what_children_take_counts():
    before = memory_mb(os.getpid())
    with started(KEEPS) as child:
        assert memory_mb(os.getpid()) - before > 64
        assert memory_mb(child.pid) > 64
        child.kill()


def test_what_two_processes_map_counts_half_for_each(weights):
    with started(MAPS_A_FILE, str(weights)) as first:
        alone = memory_mb(first.pid)
        with started(MAPS_A_FILE, str(weights)) as second:
            assert alone - memory_mb(first.pid) == pytest.approx(32, abs=8)
            second.kill()
        first.kill()


def test_a_process_that_has_ended_takes_nothing():
    with started(KEEPS) as child:
        child.kill()
    assert memory_mb(child.pid) == 0


def test_no_ceiling_is_always_room():
    require_room(0)


def test_a_ceiling_above_what_is_taken_is_room():
    require_room(1_000_000)


def test_a_ceiling_below_what_is_taken_is_refused_since_it_would_restart_for_ever():
    with pytest.raises(SettingsError, match=r"max_memory_mb is 1, but the worker takes \d+ MB"):
        require_room(1)


def test_a_kernel_that_cannot_say_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    with pytest.raises(SettingsError, match="smaps_rollup"):
        require_room(1000)
