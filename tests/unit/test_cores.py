"""Cores that a process may use: its affinity, less what its cgroups withhold, divided among children."""

import os
from pathlib import Path

import pytest

from workers.engines.cores import Share, cpu_quota, divide, quota_v1, quota_v2, usable_cores


def cgroup(root: Path, folder: str, **files: str) -> None:
    """A cgroup with these files; `cpu_max="…"` is `cpu.max`."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / folder / name.replace("cpu_", "cpu.", 1)).write_text(text + "\n")


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("400000 100000", 4.0), ("50000", 0.5)]
)
def test_version_2_states_a_quota_and_its_period(text, cores):
    assert quota_v2(text) == cores


@pytest.mark.parametrize(("quota_us", "cores"), [("-1\n", None), ("250000\n", 2.5)])
def test_version_1_states_them_in_two_files(quota_us, cores):
    assert quota_v1(quota_us, "100000\n") == cores


def test_the_smallest_quota_on_the_way_up_holds(tmp_path):
    cgroup(tmp_path, "kubepods/pod1/main", cpu_max="400000 100000")
    cgroup(tmp_path, "kubepods/pod1", cpu_max="200000 100000")
    cgroup(tmp_path, "kubepods", cpu_max="max 100000")
    assert cpu_quota("0::/kubepods/pod1/main\n", tmp_path) == 2.0


def test_a_quota_of_somebody_elses_cgroup_does_not_count(tmp_path):
    cgroup(tmp_path, "mine", cpu_max="max 100000")
    cgroup(tmp_path, "theirs", cpu_max="100000 100000")
    assert cpu_quota("0::/mine\n", tmp_path) is None


def test_in_a_container_the_mount_itself_is_the_cgroup(tmp_path):
    cgroup(tmp_path, "cpu,cpuacct", cpu_cfs_quota_us="300000", cpu_cfs_period_us="100000")
    assert cpu_quota("4:cpu,cpuacct:/docker/0815\n5:memory:/docker/0815\n", tmp_path) == 3.0


def test_version_2_beside_version_1_is_found_in_its_own_folder(tmp_path):
    cgroup(tmp_path, "unified/app", cpu_max="100000 100000")
    assert cpu_quota("1:name=systemd:/app\n0::/app\n", tmp_path) == 1.0


def test_a_machine_without_cgroups_sets_no_limit(tmp_path):
    assert cpu_quota("", tmp_path / "missing") is None


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("140000", 1), ("150000", 2), ("max", 8), ("1600000", 8)])
def test_usable_cores_are_the_quota_to_the_nearest_whole_one_within_the_affinity(tmp_path, monkeypatch, quota, cores):
    cgroup(tmp_path, "", cpu_max=f"{quota} 100000")
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr("workers.engines.cores.CGROUPS", tmp_path)
    monkeypatch.setattr("workers.engines.cores.OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == cores


def test_this_machine_has_at_least_one():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_children_get_neighbouring_cores_each_its_own():
    assert divide(range(8), usable=8, children=2) == [
        Share(cores=(0, 1, 2, 3), threads=4),
        Share(cores=(4, 5, 6, 7), threads=4),
    ]


def test_cores_that_do_not_divide_leave_none_idle():
    assert [share.cores for share in divide((2, 3, 5, 7, 11), usable=5, children=2)] == [(2, 3), (5, 7, 11)]


def test_a_quota_bounds_the_threads_and_not_where_they_run():
    assert divide(range(8), usable=3, children=2) == [
        Share(cores=(0, 1, 2, 3), threads=1),
        Share(cores=(4, 5, 6, 7), threads=1),
    ]


def test_more_children_than_cores_share_them():
    assert divide((0, 1), usable=2, children=3) == [
        Share(cores=(0,), threads=1),
        Share(cores=(1,), threads=1),
        Share(cores=(0,), threads=1),
    ]
