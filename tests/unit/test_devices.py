"""GPUs are found without CUDA: as the driver lists them, and as far as CUDA_VISIBLE_DEVICES shows them."""

import os
from pathlib import Path

import pytest

from tagging.errors import SettingsError
from workers.supervision import devices
from workers.supervision.devices import from_driver, from_listing, installed_gpus, visible
from workers.supervision.placement import place, with_metrics

TWO_CARDS = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA A10 (UUID: GPU-f2c38f5d-1a2b-4c3d-8e9f-001122334455)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A10 (UUID: GPU-f2c38f5d-1a2b-4c3d-8e9f-001122334455)
"""
INFORMATION = """\
Model: \t\t NVIDIA A10
IRQ:   \t\t 46
GPU UUID: \t GPU-f2c38f5d-1a2b-4c3d-8e9f-001122334455
Bus Location: \t 0000:00:1e.0
Device Minor: \t 0
"""
A100, A10 = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-f2c38f5d-1a2b-4c3d-8e9f-001122334455"
MIG = ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this a machine whose driver lists these GPUs."""

    def listing(text: str) -> None:
        program = tmp_path / "nvidia-smi"
        (tmp_path / "listing").write_text(text)
        program.write_text(f'#!/bin/sh\n[ "$*" = -L ] && exec /bin/cat {tmp_path / "listing"}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return listing


@pytest.fixture
def without_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "none")


def addresses(text: str, variable: str | None) -> list[str]:
    return [gpu.address for gpu in visible(from_listing(text), variable)]


def children(asked: str, *, per_device: int = 1, threads: int = 0, **environ: str) -> list[tuple[str, str]]:
    """Each child's name and what it finds in CUDA_VISIBLE_DEVICES."""
    placed = place(asked, per_device=per_device, threads=threads, environ=environ)
    return [(child.name, child.environ["CUDA_VISIBLE_DEVICES"]) for child in placed]


# Listing


def test_each_card_is_called_by_its_uuid():
    assert [(gpu.card, gpu.name, gpu.address) for gpu in from_listing(TWO_CARDS)] == [
        (0, "NVIDIA A100-SXM4-40GB", A100),
        (1, "NVIDIA A10", A10),
    ]


def test_a_divided_card_is_its_parts():
    assert [gpu.address for gpu in from_listing(DIVIDED)] == [*MIG, A10]
    assert from_listing(DIVIDED)[0].name == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"


def test_a_listing_without_gpus_is_empty():
    assert from_listing("No devices found.\n") == []


def test_the_drivers_folder_is_read_where_its_program_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "gpus" / "0000:00:1e.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:00:1e.0" / "information").write_text(INFORMATION)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "gpus")
    assert [(gpu.name, gpu.address) for gpu in installed_gpus()] == [("NVIDIA A10", A10)]


def test_a_uuid_that_the_driver_does_not_know_yet_gives_way_to_the_number():
    assert from_driver([INFORMATION.replace(A10, "GPU-????????-????-????")])[0].address == "0"


def test_a_driver_that_fails_has_no_gpus(machine, tmp_path, monkeypatch):
    machine("")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "none")
    assert installed_gpus() == []


# CUDA_VISIBLE_DEVICES


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        (None, [A100, A10]),
        ("1,0", ["1", "0"]),
        ("1", ["1"]),
        ("GPU-f2c3", [A10]),
        ("", []),
        ("-1", []),
        ("1,7,0", ["1"]),
        (" 0 , 1 ", ["0", "1"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(variable, seen):
    assert addresses(TWO_CARDS, variable) == seen


def test_a_part_is_visible_by_its_own_name():
    assert addresses(DIVIDED, f"{MIG[1]},{A10}") == [MIG[1], A10]


# --devices


def test_all_is_a_child_for_each_gpu(machine):
    machine(TWO_CARDS)
    assert children("all") == [("tagmill-gpu0-1", A100), ("tagmill-gpu1-1", A10)]


def test_several_workers_share_a_device(machine):
    machine(TWO_CARDS)
    assert children("1", per_device=2) == [("tagmill-gpu1-1", A10), ("tagmill-gpu1-2", A10)]


def test_a_part_of_a_card_is_a_device_like_another(machine):
    machine(DIVIDED)
    assert children("all") == [("tagmill-gpu0-1", MIG[0]), ("tagmill-gpu1-1", MIG[1]), ("tagmill-gpu2-1", A10)]
    assert children(MIG[1]) == [("tagmill-gpu1-1", MIG[1])]


def test_numbers_count_what_this_process_may_see(machine):
    machine(TWO_CARDS)
    assert children("0", CUDA_VISIBLE_DEVICES="1") == [("tagmill-gpu0-1", "1")]


def test_a_child_on_a_gpu_finds_it_as_its_first(machine):
    machine(TWO_CARDS)
    (child,) = place("1", per_device=1, threads=0, environ={})
    assert child.environ["TAGMILL_MODEL__DEVICE"] == "cuda:0"
    assert child.cores == ()


@pytest.mark.parametrize("asked", ["2", "0,GPU-none", "first", "0,", "-1"])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(machine, asked):
    machine(TWO_CARDS)
    with pytest.raises(SettingsError, match=r"0 is NVIDIA A100-SXM4-40GB \(GPU-5d5b.*; 1 is NVIDIA A10"):
        children(asked)


def test_a_gpu_that_is_hidden_is_refused_too(machine):
    machine(TWO_CARDS)
    with pytest.raises(SettingsError, match="--devices 1: expected"):
        children("1", CUDA_VISIBLE_DEVICES="0")


@pytest.mark.parametrize("asked", ["0,0", f"1,{A10}"])
def test_a_gpu_that_is_named_twice_is_refused(machine, asked):
    machine(TWO_CARDS)
    with pytest.raises(SettingsError, match="--workers-per-device"):
        children(asked)


@pytest.mark.parametrize("asked", ["all", "0"])
def test_a_machine_without_gpus_says_what_to_do(without_gpus, asked):
    with pytest.raises(SettingsError, match=r"nvidia-smi -L.*--devices cpu"):
        children(asked)


def test_workers_on_the_cpu_divide_its_cores_and_see_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("workers.engines.cores.OWN_CGROUPS", Path(tmp_path / "none"))
    first, second = place("cpu", per_device=2, threads=0, environ={})
    assert (first.name, first.cores) == ("tagmill-cpu-1", (0, 1))
    assert (second.name, second.cores) == ("tagmill-cpu-2", (2, 3))
    assert first.environ == {
        "CUDA_VISIBLE_DEVICES": "",
        "TAGMILL_MODEL__DEVICE": "cpu",
        "TAGMILL_MODEL__THREADS": "2",
    }


def test_threads_that_were_set_stay_as_they_are():
    (child,) = place("cpu", per_device=1, threads=7, environ={})
    assert child.environ["TAGMILL_MODEL__THREADS"] == "7"


def test_each_child_is_scraped_at_a_port_of_its_own():
    children = with_metrics(place("cpu", per_device=3, threads=1, environ={}), first_port=9464)
    assert [child.environ["TAGMILL_METRICS__PORT"] for child in children] == ["9464", "9465", "9466"]


def test_metrics_that_are_off_stay_off():
    (child,) = with_metrics(place("cpu", per_device=1, threads=1, environ={}), first_port=0)
    assert "TAGMILL_METRICS__PORT" not in child.environ
