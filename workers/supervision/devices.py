"""The GPUs of this machine as their driver lists them, without loading CUDA into this process.

A process that has initialised CUDA holds memory on the card and cannot pass it on; so the driver's own program is
asked, or its folder in ``/proc``, and ``CUDA_VISIBLE_DEVICES`` is read as CUDA reads it.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

DRIVER: Final = Path("/proc/driver/nvidia/gpus")
_LISTING_S: Final = 30.0  # the driver takes some seconds where nothing keeps it loaded
_CARD: Final = re.compile(r"GPU (?P<number>\d+): (?P<name>.*?) \(UUID: (?P<uuid>[^)]+)\)")
_PART: Final = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+\d+: \(UUID: (?P<uuid>[^)]+)\)")
_FIELD: Final = re.compile(r"^(GPU UUID|Model):\s*(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU, or the part of one that MIG makes."""

    card: int
    """The number of its card, as ``nvidia-smi`` counts them."""
    uuid: str
    name: str
    address: str
    """What a process finds it by in ``CUDA_VISIBLE_DEVICES``: the UUID, which means the same card in any order."""


def visible_gpus(cuda_visible_devices: str | None) -> list[Gpu]:
    """The GPUs that a process with this variable may use, in its order; None stands for no such variable."""
    return visible(installed_gpus(), cuda_visible_devices)


def installed_gpus() -> list[Gpu]:
    """The GPUs of this machine, a card that MIG divides as its parts; empty where there is no driver."""
    try:
        # Found on PATH: it lies elsewhere on each distribution.
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_LISTING_S, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return from_driver(path.read_text(encoding="utf-8") for path in sorted(DRIVER.glob("*/information")))
    return from_listing(listed.stdout)


def from_listing(text: str) -> list[Gpu]:
    """The GPUs that ``nvidia-smi -L`` printed."""
    gpus: list[Gpu] = []
    card: Gpu | None = None
    for line in text.splitlines():
        if found := _CARD.match(line):
            uuid = found["uuid"]
            card = Gpu(card=int(found["number"]), uuid=uuid, name=found["name"], address=uuid)
            gpus.append(card)
        elif card is not None and (found := _PART.match(line)):
            # CUDA cannot use a whole card that is divided.
            gpus = [gpu for gpu in gpus if gpu is not card]
            name = f"{card.name} MIG {found['profile']}"
            gpus.append(replace(card, uuid=found["uuid"], name=name, address=found["uuid"]))
    return gpus


def from_driver(files: Iterable[str]) -> list[Gpu]:
    """The GPUs of the driver's ``information`` files, which come in the order of their bus; they do not show MIG."""
    gpus = []
    for number, text in enumerate(files):
        fields = dict(_FIELD.findall(text))
        uuid = fields.get("GPU UUID", "")
        address = uuid if uuid.startswith("GPU-") and "?" not in uuid else str(number)
        gpus.append(Gpu(card=number, uuid=uuid, name=fields.get("Model", "NVIDIA GPU"), address=address))
    return gpus


def visible(gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> list[Gpu]:
    """Those that the variable names, in its order. Like CUDA it reads no further than the first name it cannot find."""
    if cuda_visible_devices is None:
        return list(gpus)
    return list(_as_far_as_known(gpus, cuda_visible_devices.split(",")))


def _as_far_as_known(gpus: Sequence[Gpu], names: Iterable[str]) -> Iterator[Gpu]:
    for name in names:
        gpu = named(gpus, name.strip())
        if gpu is None:
            return
        # A number is left as it is: CUDA may count the cards in another order than nvidia-smi does.
        yield replace(gpu, address=name.strip()) if name.strip().isdecimal() else gpu


def named(gpus: Sequence[Gpu], name: str) -> Gpu | None:
    """The first one of this card's number, or whose UUID begins like this; None where there is none."""
    if name.isdecimal():
        return next((gpu for gpu in gpus if gpu.card == int(name)), None)
    return next((gpu for gpu in gpus if gpu.uuid.startswith(name)), None) if name else None
