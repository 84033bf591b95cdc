"""An engine process keeps the Engine contract, and its failures cost one call."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError, ModelRefused
from tests.engine.engines_for_processes import BROKEN, MISCHIEF, REFUSED, SLOW, VARIABLES
from workers.engines.fake import FakeEngine
from workers.engines.process import EngineProcess
from workers.ports import Pair

ROOT = Path(__file__).resolve().parents[2]
GOOD = [Pair(f"text {number}", "label") for number in range(50)]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s until {what}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def shared() -> Iterator[EngineProcess]:
    """One engine for the tests that leave it alive."""
    with contextlib.closing(EngineProcess(MISCHIEF)) as engine:
        yield engine


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with contextlib.closing(EngineProcess(MISCHIEF)) as engine:
        yield engine


def revived(engine: EngineProcess) -> EngineProcess:
    engine.restart()
    assert engine.entail(GOOD) == FakeEngine().entail(GOOD)
    return engine


def test_answers_are_those_of_the_engine_itself(shared: EngineProcess) -> None:
    assert shared.entail(GOOD) == FakeEngine().entail(GOOD)
    assert shared.info == FakeEngine().info


def test_how_often_a_pass_was_halved_comes_back_too(shared: EngineProcess) -> None:
    assert shared.entail([Pair("tight", "a")]).shrunk == 2


def test_a_hundred_calls_come_back_in_order(shared: EngineProcess) -> None:
    for number in range(100):
        pairs = [Pair(f"{number}", "a"), Pair("b", f"{number}")]
        assert shared.entail(pairs) == FakeEngine().entail(pairs)


def test_calls_from_several_threads_do_not_get_each_others_answers(shared: EngineProcess) -> None:
    wrong: list[int] = []

    def ask(caller: int) -> None:
        for number in range(20):
            pairs = [Pair(f"{caller}", f"{number}")]
            if shared.entail(pairs) != FakeEngine().entail(pairs):
                wrong.append(caller)

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_requests_larger_than_a_pipes_buffer_pass(shared: EngineProcess) -> None:
    pairs = [Pair("长" * 20_000 + str(number), "x") for number in range(50)]
    assert shared.entail(pairs) == FakeEngine().entail(pairs)


def test_any_text_passes_lone_surrogates_included(shared: EngineProcess) -> None:
    pairs = [Pair("\ud800 \x00 🫠", "")]
    assert shared.entail(pairs) == FakeEngine().entail(pairs)


def test_no_pairs_make_an_empty_answer(shared: EngineProcess) -> None:
    assert shared.entail([]).logits == []


def test_out_of_memory_leaves_the_child_alive(shared: EngineProcess) -> None:
    with pytest.raises(DeviceOutOfMemory, match="512 tokens"):
        shared.entail([Pair("oom", "")])
    assert shared.is_alive
    assert shared.entail(GOOD) == FakeEngine().entail(GOOD)


def test_an_unforeseen_error_is_told_by_its_place_and_never_by_its_message(shared: EngineProcess) -> None:
    with pytest.raises(EngineError, match=r"KeyError at engines_for_processes\.py:\d+") as failed:
        shared.entail([Pair("bug", "")])
    assert "customer" not in str(failed.value)
    assert shared.is_alive


def test_signals_to_the_group_are_the_parents_business(shared: EngineProcess) -> None:
    pairs = [Pair("signals", "")]
    assert shared.entail(pairs) == FakeEngine().entail(pairs)


def test_the_childs_environment_is_set_before_its_engine_is_imported() -> None:
    engine = EngineProcess(VARIABLES, {"names": ["OMP_NUM_THREADS"]}, environment={"OMP_NUM_THREADS": "3"})
    with contextlib.closing(engine):
        assert engine.info.name == "3"


# Death


@pytest.mark.parametrize(
    ("word", "told"), [("crash", "SIGSEGV"), ("exit", "exit code 7"), ("lost", "device-side assert")]
)
def test_a_death_is_told_by_the_pending_and_by_every_later_call_until_a_restart(
    engine: EngineProcess, word: str, told: str
) -> None:
    for _ in range(2):
        with pytest.raises(EngineDied, match=told):
            engine.entail([Pair(word, "")])
    assert not engine.is_alive
    revived(engine)


def test_a_death_between_calls_is_told_by_the_next(engine: EngineProcess) -> None:
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # Its first thread can be gone a moment before the others, and only then can it be waited for.
    wait_until(lambda: not engine.is_alive, "the child is gone")
    with pytest.raises(EngineDied, match="SIGKILL"):
        engine.entail(GOOD)
    revived(engine)


@pytest.mark.parametrize("word", ["hang", "stop"])
def test_a_child_that_gives_no_answer_in_time_is_killed(word: str) -> None:
    with contextlib.closing(EngineProcess(MISCHIEF, timeout_s=0.5)) as engine:
        pid = engine.pid
        with pytest.raises(EngineDied, match=r"no answer within 0\.5 s"):
            engine.entail([Pair(word, "")])
        assert pid is not None
        assert not is_running(pid)
        revived(engine)


def test_a_child_that_does_not_even_read_is_killed() -> None:
    with contextlib.closing(EngineProcess(MISCHIEF, timeout_s=1.0)) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineDied):
            engine.entail([Pair("长" * 2_000_000, "x")])
        assert not engine.is_alive


def test_a_call_that_is_interrupted_does_not_leave_its_answer_to_the_next(engine: EngineProcess) -> None:
    class TimeLimit(BaseException):
        """What a worker raises from a signal's handler."""

    def interrupt(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeLimit):
            engine.entail([Pair("hang", "")])
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(EngineDied, match="interrupted"):
        engine.entail(GOOD)
    revived(engine)


def test_restarting_a_healthy_engine_replaces_its_process(engine: EngineProcess) -> None:
    before = engine.pid
    assert revived(engine).pid != before


# Loading


def test_a_refused_model_is_refused_here_with_the_same_words() -> None:
    with pytest.raises(ModelRefused, match=r"^vocab.txt: missing$"):
        EngineProcess(REFUSED, {"reason": "vocab.txt: missing"})


def test_a_failure_while_loading_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match=r"LookupError at engines_for_processes\.py"):
        EngineProcess(BROKEN)


def test_a_factory_that_does_not_exist_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="ModuleNotFoundError"):
        EngineProcess("no.such.module:engine")


def test_loading_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(EngineDied, match="no answer within 2 s"):
        EngineProcess(SLOW, {"seconds": 60, "started": str(tmp_path / "started")}, start_timeout_s=2)
    assert (tmp_path / "started").exists()


# Closing


def test_closing_ends_the_child_and_later_calls_say_so() -> None:
    engine = EngineProcess(MISCHIEF)
    pid = engine.pid
    engine.close()
    engine.close()
    assert pid is not None
    assert not is_running(pid)
    with pytest.raises(EngineDied, match="closed"):
        engine.entail(GOOD)


def test_closing_while_a_pass_hangs_takes_no_longer_than_its_grace() -> None:
    engine = EngineProcess(MISCHIEF)
    died: list[BaseException] = []

    def ask() -> None:
        try:
            engine.entail([Pair("hang", "")])
        except EngineDied as error:
            died.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    wait_until(engine._lock.locked, "the call is on its way")
    started = time.monotonic()
    engine.close(grace_s=0.3)
    caller.join(5)
    assert time.monotonic() - started < 3
    assert died


PARENT = """
import os, sys, time
from workers.engines.process import EngineProcess
from workers.ports import Pair
if __name__ == "__main__":
    engine = EngineProcess("tests.engine.engines_for_processes:Mischief")
    print(engine.pid, flush=True)
    {then}
"""


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("sys.exit(0)", 0),  # forgot to close
        ("os.kill(os.getpid(), 9)", -9),
        ("import threading; threading.Timer(0.3, os._exit, [3]).start(); engine.entail([Pair('hang', '')])", 3),
    ],
    ids=["exits", "killed", "killed during a pass"],
)
def test_the_child_goes_with_its_parent(tmp_path: Path, then: str, code: int) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(then=then), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, timeout=30, check=False
    )
    assert done.returncode == code
    child = int(done.stdout)
    wait_until(lambda: not is_running(child), "the child noticed")
