"""The child's side of an engine process: load a model, say so, answer until the pipe closes.

Imports neither torch nor a model before the environment is set; both read it once, on import.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from array import array
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import chain
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tagging import logs
from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError, ModelRefused
from tagging.long_text import LongText
from workers.ports import Engine, Entailment, Logit, Pair, Reading

ERRORS: dict[str, type[Exception]] = {
    error.__name__: error for error in (ModelRefused, EngineError, DeviceOutOfMemory, EngineDied)
}
PARENT_CHECK_S = 1.0

Reply = tuple[Any, ...]  # ("ready", ModelInfo) | ("scored", ...) | ("failed", name of the error, its message)


def serve(
    pipe: Connection, factory: str, arguments: Mapping[str, Any], environment: Mapping[str, str], log_level: str
) -> None:
    """Build the engine that `factory` names and answer what comes through `pipe`, until it closes."""
    # A terminal and a service manager signal the whole group. Whether this process is still needed, the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.update(environment)
    logs.configure_plain("workers", log_level)
    threading.Thread(target=_leave_with_parent, name="parent-watch", daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the parent closed the pipe, or is gone
        try:
            engine: Engine = locate(factory)(**arguments)
        except Exception as error:  # noqa: BLE001  # the parent raises it again
            pipe.send(_failure(error))
            return
        pipe.send(("ready", engine.info))
        try:
            _answer_all(pipe, engine)
        finally:
            engine.close()


def locate(dotted: str) -> Callable[..., Engine]:
    """The callable called `package.module:name`."""
    module, _, name = dotted.partition(":")
    found: Callable[..., Engine] = getattr(import_module(module), name)
    return found


def unpack(reply: Reply) -> Entailment:
    """What `_scored` packed."""
    _, logits, tokens, padded_tokens, device_ms, readings, shrunk = reply
    values = array("f")
    values.frombytes(logits)
    counts = array("I")
    counts.frombytes(tokens)
    read = array("I")
    read.frombytes(readings)
    return Entailment(
        logits=[Logit(*row) for row in zip(values[::2], values[1::2], strict=True)],
        tokens=counts.tolist(),
        padded_tokens=padded_tokens,
        device_ms=device_ms,
        readings=[Reading(n, bool(cut)) for n, cut in zip(read[::2], read[1::2], strict=True)],
        shrunk=shrunk,
    )


def _answer_all(pipe: Connection, engine: Engine) -> None:
    while True:
        request: Sequence[tuple[str, str, LongText]] | None = pipe.recv()
        if request is None:
            return
        try:
            reply = _scored(engine.entail([Pair(*pair) for pair in request]))
        except Exception as error:  # noqa: BLE001  # the parent raises it again
            reply = _failure(error)
        pipe.send(reply)
        if reply[:2] == ("failed", EngineDied.__name__):
            return  # a device that is lost comes back with a new process only


def _scored(answer: Entailment) -> Reply:
    values = array("f", [value for logit in answer.logits for value in logit])
    tokens, readings = array("I", answer.tokens), array("I", chain.from_iterable(answer.readings))
    return (
        "scored",
        values.tobytes(),
        tokens.tobytes(),
        answer.padded_tokens,
        answer.device_ms,
        readings.tobytes(),
        answer.shrunk,
    )


def _failure(error: Exception) -> Reply:
    name = type(error).__name__
    if name in ERRORS:
        return ("failed", name, str(error))
    # Not one of ours, so its message may quote a customer: send where it happened instead.
    place = traceback.extract_tb(error.__traceback__)[-1]
    return ("failed", EngineError.__name__, f"{name} at {Path(place.filename).name}:{place.lineno}")


def _leave_with_parent() -> None:
    """End this process when its parent has ended, even while a pass runs or hangs."""
    parent = parent_process()
    if parent is None:
        return
    # The pipe to the parent can outlive it, where a process forked from the parent holds a copy: look at the pid, too.
    known = os.getppid()
    while os.getppid() == known and not wait([parent.sentinel], timeout=PARENT_CHECK_S):
        pass
    os._exit(1)
