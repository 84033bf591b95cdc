"""An engine in a process of its own: neither GIL holds up the other, and a crash or a hang costs one batch."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from tagging.errors import EngineDied, EngineError
from tagging.long_text import LongText
from workers.engines.serving import ERRORS, Reply, serve, unpack
from workers.ports import Entailment, ModelInfo, Pair

KILL_S = 5.0  # a killed process is gone long before, unless its driver holds it


class EngineProcess:
    """The Engine contract across a process boundary. Calls from several threads wait for one another.

    Args:
        factory: What builds the engine in the child, as `package.module:callable`.
        arguments: Its keyword arguments; anything that pickles.
        environment: Set in the child before anything is imported there, such as `OMP_NUM_THREADS`.
        timeout_s: A call without an answer for this long means that the child hangs: it is killed.
        start_timeout_s: The same for loading the model.
        log_level: Events below it are left out of the child's log, which goes to standard error.

    Raises:
        ModelRefused: The child could not serve this model.
        EngineDied: The child ended, or hung, before it was ready.
    """

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
        start_timeout_s: float = 600.0,
        log_level: str = "warning",
    ) -> None:
        self._child_arguments = (factory, dict(arguments or {}), dict(environment or {}), log_level)
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._death = "not started"
        self._info: ModelInfo
        self.restart()

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether a call made now would find a running child."""
        process = self._process
        return self._pipe is not None and process is not None and process.is_alive()

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        """Logits of each pair, same order; see `Engine`.

        Raises:
            EngineDied: The child crashed or hung, now or earlier; `restart` brings it back.
        """
        with self._lock:
            try:
                request = [(pair.text, pair.hypothesis, pair.long_text) for pair in pairs]
                return unpack(self._ask(request, self._timeout_s))
            except EngineError:
                raise
            except BaseException:
                # A signal's exception, such as a time limit: the answer still to come would be taken for the next one.
                self._bury("a call was interrupted")
                raise

    def restart(self) -> None:
        """End the child, if there is one, and start another; returns once its model is loaded."""
        with self._lock:
            self._bury("restarted")
            self._spawn()
            try:
                _, self._info = self._receive(self._start_timeout_s)
            except BaseException as error:
                self._bury(f"not ready: {error}")
                raise

    def close(self, *, grace_s: float = 5.0) -> None:
        """End the child: it may finish what it does within `grace_s`, then it is killed."""
        idle = self._lock.acquire(timeout=grace_s)
        if not idle:
            self._kill()  # whoever holds the lock waits for the child, and learns that it died
            idle = self._lock.acquire(timeout=KILL_S)
        if idle:
            try:
                self._dismiss(grace_s)
            finally:
                self._lock.release()
        atexit.unregister(self.close)

    def _dismiss(self, grace_s: float) -> None:
        if self._pipe is not None and self._process is not None:
            with contextlib.suppress(OSError):
                self._pipe.send(None)
            self._process.join(grace_s)
        self._bury("closed")

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        # Neither a full pipe nor half an answer may block for ever.
        _limit_waiting(self._pipe, max(self._timeout_s, 1.0))
        self._process = context.Process(
            target=serve, args=(childs_end, *self._child_arguments), name="tagmill-engine", daemon=True
        )
        self._process.start()
        childs_end.close()  # the child's copy is now the only one, so its death ends our reading
        # Registered after multiprocessing's own hook, so run before it: that one waits for a SIGTERM to be heeded.
        atexit.unregister(self.close)
        atexit.register(self.close)

    def _ask(self, request: list[tuple[str, str, LongText]], timeout_s: float) -> Reply:
        if self._pipe is None:
            raise EngineDied(f"the engine process is gone ({self._death}); restart it")
        try:
            self._pipe.send(request)
        except OSError as error:
            raise self._died(error) from error
        return self._receive(timeout_s)

    def _receive(self, timeout_s: float) -> Reply:
        """The child's next answer, or the error it stands for."""
        assert self._pipe is not None
        try:
            if not self._pipe.poll(timeout_s):
                raise TimeoutError
            reply: Reply = self._pipe.recv()
        except TimeoutError as error:
            self._bury(f"no answer within {timeout_s:g} s")
            raise EngineDied(f"the engine process gave no answer within {timeout_s:g} s and was killed") from error
        except (EOFError, OSError) as error:
            raise self._died(error) from error
        if reply[0] != "failed":
            return reply
        _, name, message = reply
        if name == EngineDied.__name__:
            self._bury(message)
        raise ERRORS[name](message)

    def _died(self, error: Exception) -> EngineDied:
        process = self._process
        if process is not None and not isinstance(error, BlockingIOError):
            process.join(1.0)  # it may be some milliseconds from being reaped
        self._bury("" if process is None else _cause_of_death(process))
        return EngineDied(f"the engine process died ({self._death}); what it was scoring is not scored")

    def _bury(self, death: str) -> None:
        pipe, self._pipe = self._pipe, None
        process, self._process = self._process, None
        if process is None:
            return
        self._death = death
        if process.is_alive():
            process.kill()
            process.join(KILL_S)
        if pipe is not None:
            pipe.close()


def _cause_of_death(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is None:
        return "it does not read its pipe"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _limit_waiting(pipe: Connection, seconds: float) -> None:
    """Make one read or write of this pipe, a pair of sockets, fail after `seconds` without progress."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    with socket.socket(fileno=os.dup(pipe.fileno())) as duplicate:  # same socket, so the option holds for both
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
