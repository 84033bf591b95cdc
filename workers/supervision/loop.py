"""Carries out what ``decisions`` says, with real processes, signals and time."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from workers.exits import Exit
from workers.nodes import new_node
from workers.supervision.decisions import Action, End, Limits, Send, Start, Supervisor, Tell
from workers.supervision.placement import Child

log = structlog.get_logger()

Command = Callable[[str], Sequence[str]]
"""The command line of a worker whose node has this name."""

_ASKED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_WATCHED: Final = frozenset({signal.SIGCHLD, *_ASKED})
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


def supervise(children: Sequence[Child], *, command: Command, limits: Limits) -> int:
    """Run these children until they were told to stop, or gave up; the exit code for this process.

    To be called on the main thread of a process without others: signals are waited for, so that none can come between
    two steps.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        return _run(Supervisor([child.name for child in children], limits), Crew(children, command))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(supervisor: Supervisor, crew: "Crew") -> int:
    code = crew.carry_out(supervisor.begin())
    while code is None:
        number = crew.wait(until=supervisor.due_at)
        actions: list[Action] = []
        for name, how in crew.take_ended():
            actions += supervisor.ended(name, how, now=time.monotonic())
        if number in _ASKED:
            actions += supervisor.asked(number, now=time.monotonic())
        actions += supervisor.passed(now=time.monotonic())
        code = crew.carry_out(actions)
    return code


class Crew:
    """The processes of the children."""

    def __init__(self, children: Iterable[Child], command: Command) -> None:
        self._children = {child.name: child for child in children}
        self._command = command
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._not_started: list[str] = []

    def carry_out(self, actions: Iterable[Action]) -> int | None:
        """Do these in order; the exit code once one says to end."""
        for action in actions:
            match action:
                case Start(child=name):
                    self._start(self._children[name])
                case Send(child=name, number=number):
                    self._processes[name].send_signal(number)
                case Tell(level=level, event=event, fields=fields):
                    getattr(log, level)(event, **fields)
                case End(code=code):
                    log.info("supervisor.ended", code=int(code))
                    return code
        return None

    def wait(self, *, until: float | None) -> int | None:
        """The next signal, a child's end included; None once the clock shows ``until``."""
        if self._not_started:
            return None
        if until is None:
            return signal.sigwait(_WATCHED)
        came = signal.sigtimedwait(_WATCHED, max(0.0, until - time.monotonic()))
        return None if came is None else came.si_signo

    def take_ended(self) -> list[tuple[str, int]]:
        """Who has ended since, and how: an exit code, or a signal's number below zero."""
        failed, self._not_started = [(name, int(Exit.FAILED)) for name in self._not_started], []
        ended = [(name, code) for name, process in self._processes.items() if (code := process.poll()) is not None]
        for name, _ in ended:
            del self._processes[name]
        return failed + ended

    def _start(self, child: Child) -> None:
        node = new_node(child.name)
        try:
            process = self._spawn(child, node)
        except (OSError, subprocess.SubprocessError) as e:
            log.error("child.not_started", node=node, cause=str(e))
            self._not_started.append(child.name)
            return
        self._processes[child.name] = process
        log.info("child.started", node=node, pid=process.pid, device=child.device)

    def _spawn(self, child: Child, node: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # the command line that our caller made
            self._command(node),
            env=_environment(child.environ),
            stdin=subprocess.DEVNULL,
            # A terminal's Ctrl-C is for us to pass on; the child would take a second one for impatience.
            process_group=0,
            preexec_fn=_prepare(child.cores, os.getpid()),  # noqa: PLW1509  # this process has no other thread
        )


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **own}


def _prepare(cores: Sequence[int], supervisor: int) -> Callable[[], None]:
    """What a child does between fork and exec."""

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        # Without us nobody would restart, stop or count it: it finishes what it has fetched and goes.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:
            os._exit(Exit.FAILED)  # we died in between
        if cores:
            os.sched_setaffinity(0, cores)

    return prepare
