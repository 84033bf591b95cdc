"""Engines that misbehave on request: what an engine process builds in its child when it is tested."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tagging.errors import DeviceOutOfMemory, EngineDied, ModelRefused
from workers.engines.fake import FakeEngine
from workers.ports import Entailment, Pair

MISCHIEF = "tests.engine.engines_for_processes:Mischief"
REFUSED = "tests.engine.engines_for_processes:refused"
BROKEN = "tests.engine.engines_for_processes:broken"
SLOW = "tests.engine.engines_for_processes:slow"
VARIABLES = "tests.engine.engines_for_processes:Variables"


class Mischief(FakeEngine):
    """Does what the first text says: `crash`, `exit`, `hang`, `stop`, `oom`, `lost`, `bug`, `tight`; else scores."""

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        word = pairs[0].text if pairs else ""
        match word:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(7)
            case "hang":
                time.sleep(600)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "oom":
                raise DeviceOutOfMemory("cuda:0: a single pair of 512 tokens does not fit")
            case "lost":
                raise EngineDied("cuda:0: AcceleratorError: device-side assert triggered")
            case "bug":
                raise KeyError("what the customer wrote")
            case "tight":
                return replace(super().entail(pairs), shrunk=2)
            case "signals":
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
        return super().entail(pairs)


class Variables(FakeEngine):
    """Is called by the values of some environment variables."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name=",".join(os.environ.get(name, "") for name in names))


def refused(reason: str) -> FakeEngine:
    raise ModelRefused(reason)


def broken() -> FakeEngine:
    raise LookupError("details")


def slow(seconds: float, started: str) -> FakeEngine:
    Path(started).touch()
    time.sleep(seconds)
    return FakeEngine()
