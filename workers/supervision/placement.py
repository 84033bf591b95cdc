"""Which children a ``--devices`` asks for: a process for each device, with what it must find in its environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tagging.errors import SettingsError
from workers.engines.cores import shares
from workers.supervision.devices import Gpu, named, visible_gpus

ALL: Final = "all"
CPU: Final = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A worker process that is to run."""

    name: str
    """The beginning of its node's name: `tagmill-gpu0-1` is the first worker on the first GPU."""
    device: str
    """The device in words."""
    environ: Mapping[str, str]
    """What its environment has besides this process's own, from before torch is imported."""
    cores: tuple[int, ...] = ()
    """The cores it may run on; empty: as this process."""


def place(devices: str, *, per_device: int, threads: int, environ: Mapping[str, str]) -> list[Child]:
    """The children for a ``--devices``: ``all``, ``cpu``, or GPUs by number or UUID, with commas between.

    A number counts the GPUs that this process may see, so it is the N of ``cuda:N``.

    Args:
        per_device: How many workers each device gets.
        threads: ``model.threads``; where it is 0, workers on a CPU divide the cores.

    Raises:
        SettingsError: There is no such device; lists those that there are.
    """
    if devices.strip() == CPU:
        return _on_cpu(per_device, threads)
    gpus = visible_gpus(environ.get("CUDA_VISIBLE_DEVICES"))
    chosen = _chosen(devices, gpus)
    return [_on_gpu(number, gpu, worker) for number, gpu in chosen for worker in range(1, per_device + 1)]


def with_metrics(children: Sequence[Child], *, first_port: int) -> list[Child]:
    """The children, each with a port of its own for metrics: the first and those after it; 0 leaves all off."""
    if not first_port:
        return list(children)
    return [
        replace(child, environ={**child.environ, "TAGMILL_METRICS__PORT": str(port)})
        for port, child in enumerate(children, start=first_port)
    ]


def _on_gpu(number: int, gpu: Gpu, worker: int) -> Child:
    return Child(
        name=f"tagmill-gpu{number}-{worker}",
        device=f"GPU {number}, {gpu.name}",
        # It sees this card alone, as its first.
        environ={"CUDA_VISIBLE_DEVICES": gpu.address, "TAGMILL_MODEL__DEVICE": "cuda:0"},
    )


def _on_cpu(workers: int, threads: int) -> list[Child]:
    return [
        Child(
            name=f"tagmill-cpu-{number}",
            device=f"cpu, cores: {len(share.cores)}, threads: {threads or share.threads}",
            environ={
                "CUDA_VISIBLE_DEVICES": "",
                "TAGMILL_MODEL__DEVICE": CPU,
                "TAGMILL_MODEL__THREADS": str(threads or share.threads),
            },
            cores=share.cores,
        )
        for number, share in enumerate(shares(workers), start=1)
    ]


def _chosen(devices: str, gpus: Sequence[Gpu]) -> list[tuple[int, Gpu]]:
    """The GPUs that are asked for, each with its number among those that can be seen."""
    if not gpus:
        raise SettingsError(
            [
                f"--devices {devices}: no GPU can be seen here. Check the driver (`nvidia-smi -L`), what the container "
                "is given and CUDA_VISIBLE_DEVICES, or use --devices cpu."
            ]
        )
    if devices.strip() == ALL:
        return list(enumerate(gpus))
    names = [name.strip() for name in devices.split(",")]
    chosen = [_by_name(name, gpus) for name in names]
    if problems := [_missing(name, gpus) for name, number in zip(names, chosen, strict=True) if number is None]:
        raise SettingsError(problems)
    numbers = [number for number in chosen if number is not None]
    if len(set(numbers)) < len(numbers):
        raise SettingsError([f"--devices {devices} names a GPU twice; --workers-per-device N starts N on each"])
    return [(number, gpus[number]) for number in numbers]


def _by_name(name: str, gpus: Sequence[Gpu]) -> int | None:
    if name.isdecimal():
        return int(name) if int(name) < len(gpus) else None
    gpu = named(gpus, name)
    return None if gpu is None else gpus.index(gpu)


def _missing(name: str, gpus: Sequence[Gpu]) -> str:
    known = "; ".join(f"{number} is {gpu.name} ({gpu.uuid})" for number, gpu in enumerate(gpus))
    return f"--devices {name}: expected all, cpu, or GPUs by number or UUID, with commas; here {known}"
