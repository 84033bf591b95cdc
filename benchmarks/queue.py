"""Texts a second through real brokers, with an engine that costs nothing.

``plain``: ordinary Celery tasks in the threads pool; ``single``: this worker, one text a message; ``many64``: the same,
64 texts a message. Results are stored in Redis and events are on in all three; ours write the cache and the ledger as
well. The queue is filled first; the clock runs from the first tenth of the answers to the last, so that start-up
does not count.
"""

import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.rabbit import rabbit_server
from producers.publisher import Publisher
from tagging.names import TAG_MANY, TAG_TICKET
from tagging.settings import load
from tagmill.embedded import end_on_signals, redis_server, stop

_MANY: Final = 64
_LABELS: Final = ["物流配送", "退款退货", "支付", "账号登录", "其他"]
_TEXT: Final = "订单{}付款后一直显示处理中，麻烦帮忙看一下什么时候可以发货，谢谢"
_LIMIT_S: Final = 60.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one run took."""

    texts_per_s: float
    cpu_us: float
    """CPU time of the worker process for a text; a busy machine moves it less than the wall clock."""


def run(*, messages: int, rounds: int, brokers: Sequence[str], echo: Callable[[str], None]) -> dict[str, Row | None]:
    """Medians of interleaved rounds, by broker; ``None`` for a broker that is not installed here."""
    end_on_signals()
    logging.getLogger("celery").setLevel(logging.ERROR)
    return {broker: _measure(broker, messages=messages, rounds=rounds, echo=echo) for broker in brokers}


def _measure(broker: str, *, messages: int, rounds: int, echo: Callable[[str], None]) -> Row | None:
    if broker == "rabbitmq" and shutil.which("rabbitmq-server") is None:
        echo("rabbitmq-server is not installed here: skipped")
        return None
    variants: dict[str, Callable[[_Bench], Speed]] = {
        "plain": lambda bench: bench.plain(messages),
        "single": lambda bench: bench.single(messages),
        "many64": lambda bench: bench.many(messages * 8),
    }
    speeds: dict[str, list[Speed]] = {name: [] for name in variants}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        bench = stack.enter_context(_bench(broker, folder))
        for round_ in range(rounds):
            for name, variant in variants.items():
                speed = variant(bench)
                speeds[name].append(speed)
                echo(
                    f"{broker} round {round_ + 1}: {name} {speed.texts_per_s:,.0f} texts/s, {speed.cpu_us:,.0f} us CPU"
                )
    medians = {name: statistics.median(speed.texts_per_s for speed in runs) for name, runs in speeds.items()}
    return {
        **{name: round(rate, 1) for name, rate in medians.items()},
        "cpu_us": {name: round(statistics.median(speed.cpu_us for speed in runs)) for name, runs in speeds.items()},
        "ratio_single": round(medians["single"] / medians["plain"], 2),
        "ratio_many": round(medians["many64"] / medians["plain"], 2),
    }


@contextmanager
def _bench(broker: str, folder: Path) -> Iterator["_Bench"]:
    with ExitStack() as stack:
        store = stack.enter_context(redis_server(folder / "redis"))
        url = store.url(0) if broker == "redis" else stack.enter_context(rabbit_server(folder / "rabbitmq"))
        environ = {
            "TAGMILL_BROKER__URL": url,
            "TAGMILL_RESULTS__URL": store.url(1),
            "TAGMILL_CACHE__URL": store.url(2),
            "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
            "TAGMILL_MODEL__NAME": "fake",
            "TAGMILL_MODEL__ISOLATE": "false",
            "TAGMILL_LOG__LEVEL": "warning",
        }
        yield _Bench(environ, redis.Redis(port=store.port, db=1), redis.Redis(port=store.port, db=2), folder)


class _Bench:
    """A broker with its stores, and a clock that counts results."""

    def __init__(self, environ: Mapping[str, str], results: redis.Redis, cache: redis.Redis, folder: Path) -> None:
        self._environ = environ
        self._results = results
        self._cache = cache
        self._folder = folder
        self._publisher = Publisher(load(environ=environ).settings)
        self._runs = 0

    def plain(self, texts: int) -> Speed:
        """Speed of ordinary tasks."""
        worker = ["-m", "celery", "-A", "benchmarks.plain", "worker", "-P", "threads", "-E", "-l", "ERROR"]
        return self._rate(worker, list(self._single(texts)), each=1)

    def single(self, texts: int) -> Speed:
        """Speed of this worker, one a message."""
        return self._rate(["-m", "tagmill", "worker", "-l", "ERROR"], list(self._single(texts)), each=1)

    def many(self, texts: int) -> Speed:
        """Speed of this worker, 64 a message."""
        return self._rate(["-m", "tagmill", "worker", "-l", "ERROR"], list(self._many(texts)), each=_MANY)

    def _rate(self, worker: Sequence[str], messages: Sequence[tuple[str, dict[str, Any], str]], *, each: int) -> Speed:
        self._results.flushdb()
        self._cache.flushdb()
        self._publisher.publish_all(messages)
        with (self._folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(  # ourselves or the rival
                [sys.executable, *worker], env={**os.environ, **self._environ}, stdout=log, stderr=log
            )
        try:
            first = len(messages) // 10
            counted_from, began = self._wait_for(first, process)
            used_s = -cpu_s(process.pid)
            counted_to, ended = self._wait_for(len(messages), process)
            used_s += cpu_s(process.pid)
        finally:
            stop(process, grace_s=30)
        texts = (counted_to - counted_from) * each
        return Speed(texts_per_s=texts / (ended - began), cpu_us=1e6 * used_s / texts)

    def _wait_for(self, answers: int, process: "subprocess.Popen[bytes]") -> tuple[int, float]:
        """How many answers there are once there are so many, and when."""
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline and process.poll() is None:
            if (count := int(self._results.dbsize())) >= answers:
                return count, time.monotonic()
            time.sleep(0.005)
        raise RuntimeError(f"the worker stopped answering:\n{(self._folder / 'worker.log').read_text()[-2000:]}")

    def _single(self, texts: int) -> Iterator[tuple[str, dict[str, Any], str]]:
        for text in self._texts(texts):
            yield TAG_TICKET, {"text": text, "labels": _LABELS}, f"{self._runs}-{text[2:10]}"

    def _many(self, texts: int) -> Iterator[tuple[str, dict[str, Any], str]]:
        lines = list(self._texts(texts))
        for start in range(0, len(lines), _MANY):
            items = [{"text": text} for text in lines[start : start + _MANY]]
            yield TAG_MANY, {"items": items, "labels": _LABELS}, f"{self._runs}-many-{start}"

    def _texts(self, count: int) -> Iterator[str]:
        """Texts that no run has seen, so that no cache answers."""
        self._runs += 1
        for i in range(count):
            yield _TEXT.format(f"{self._runs:02d}{i:06d}")


def cpu_s(pid: int) -> float:
    """CPU seconds that the process has used, its threads and the kernel on its behalf included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_tree_s(pid: int) -> float:
    """The same of the process and of those that it started and that still run."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return cpu_s(pid) + sum(map(cpu_of_tree_s, children))
