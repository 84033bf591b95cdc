"""Rows a second of a backfill through a real Redis, and its memory, with an engine that costs nothing.

The command is a process of its own, and so is the worker. The clock runs from the start of the command to its end, the
output written: reading, deduplicating, the job file, the intake, the queue, the answers and the file.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from producers.publisher import Publisher
from tagging.names import TAG_TICKET
from tagging.settings import load
from tagmill.embedded import end_on_signals, redis_server, stop

_LABELS: Final = "物流配送,退款退货,支付,账号登录,其他"
_LIVE_TICKETS: Final = 150
_LIVE_EVERY_S: Final = 0.03
_LIMIT_S: Final = 60.0
_TEXT: Final = "订单{}付款后一直显示处理中，麻烦帮忙看一下什么时候可以发货，谢谢"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rows: int
    repeated: float
    """Share of the rows whose text an earlier row has."""


class Deployment(NamedTuple):
    """A worker and its servers."""

    folder: Path
    environ: dict[str, str]
    worker: int
    """The process's id."""


def run(plan: Plan, *, echo: Callable[[str], None]) -> dict[str, Any]:
    """Rows a second, peak memory and CPU time of the command, and its report.

    Raises:
        RuntimeError: The command or the worker failed.
    """
    with served("fake", model__isolate=False) as (folder, environ, _):
        source = folder / "rows.jsonl"
        _write(source, plan)
        echo(f"{plan.rows:,} rows, {source.stat().st_size / 1e6:,.0f} MB")
        return _measure(source, environ, folder, plan)


def run_live(plan: Plan, *, pass_s: float, rounds: int, echo: Callable[[str], None]) -> dict[str, Any]:
    """How long a live ticket waits for its answer, alone and during a backfill on the same worker, in turns.

    Args:
        plan: The backfill of each round.
        pass_s: That the engine takes for a pass, whatever is in it.
        rounds: How often; medians of the rounds are given.
        echo: Gets a line a phase.

    Raises:
        RuntimeError: A backfill failed, or the worker gave no answer.
    """
    rows: list[dict[str, float]] = []
    with (
        served(f"fake:pass_s={pass_s:g}", model__isolate=False) as (folder, environ, _),
        closing(_desk(environ)) as desk,
    ):
        _waits(desk, "warm", until=lambda n: n >= 20)
        for number in range(rounds):
            alone = _waits(desk, f"alone {number}", until=lambda n: n >= _LIVE_TICKETS)
            during, took_s = _waits_during(desk, number, plan, environ, folder)
            rows.append(
                {
                    "p50_alone_ms": statistics.median(alone),
                    "p50_during_ms": statistics.median(during),
                    "p95_alone_ms": _p95(alone),
                    "p95_during_ms": _p95(during),
                    "p95_ratio": _p95(during) / _p95(alone),
                    "tickets_during": len(during),
                    "rows_per_s": plan.rows / took_s,
                }
            )
            echo(f"round {number + 1}: {', '.join(f'{name} {value:,.2f}' for name, value in rows[-1].items())}")
    return {
        "rows": plan.rows,
        "pass_s": pass_s,
        "rounds": rounds,
        "tickets_alone": _LIVE_TICKETS,
        **{name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]},
        "p95_ratios": [round(row["p95_ratio"], 2) for row in rows],
    }


def _waits_during(
    desk: Publisher, number: int, plan: Plan, environ: Mapping[str, str], folder: Path
) -> tuple[list[float], float]:
    """Milliseconds that tickets waited while a backfill ran, and the seconds that it took."""
    source = folder / f"rows-{number}.jsonl"
    _write(source, plan, first=number * plan.rows)
    log, began = folder / "backfill.log", time.perf_counter()
    process = start(backfill_command(source, _LABELS), environ, log)
    try:
        during = _waits(desk, f"during {number}", until=lambda _: process.poll() is not None)
    finally:
        stop(process)
    if process.returncode:
        raise RuntimeError(f"the backfill ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    return during, time.perf_counter() - began


@contextmanager
def served(model: str, **settings: object) -> Iterator[Deployment]:
    """A deployment with a worker of this model; settings as in ``model__threads=2``."""
    end_on_signals()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        store = stack.enter_context(redis_server(folder / "redis"))
        environ = {
            "TAGMILL_BROKER__URL": store.url(0),
            "TAGMILL_RESULTS__URL": store.url(1),
            "TAGMILL_CACHE__URL": store.url(2),
            "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
            "TAGMILL_BACKFILL__JOBS_DIR": str(folder / "jobs"),
            "TAGMILL_MODEL__NAME": model,
            "TAGMILL_LOG__LEVEL": "warning",
            **{f"TAGMILL_{name.upper()}": str(value) for name, value in settings.items()},
        }
        worker = start(["-m", "tagmill", "worker", "-l", "ERROR"], environ, folder / "worker.log")
        stack.callback(stop, worker, grace_s=60)
        yield Deployment(folder, environ, worker.pid)


def _desk(environ: Mapping[str, str]) -> Publisher:
    return Publisher(load(environ=environ).settings)


def _waits(desk: Publisher, name: str, *, until: Callable[[int], bool]) -> list[float]:
    """Milliseconds from sending a ticket to its answer, one ticket after the other, until it is enough."""
    waits: list[float] = []
    while not until(len(waits)):
        began = time.perf_counter()
        message = {"text": f"{name} {len(waits)} 付款后一直没有发货", "labels": _LABELS.split(",")}
        task_id = desk.publish(TAG_TICKET, message)
        while not desk.settled([task_id]):
            if time.perf_counter() - began > _LIMIT_S:
                raise RuntimeError(f"no answer within {_LIMIT_S:g} s")
            time.sleep(0.001)
        waits.append(1000 * (time.perf_counter() - began))
        time.sleep(_LIVE_EVERY_S)
    return waits


def _p95(waits: Sequence[float]) -> float:
    return statistics.quantiles(waits, n=20)[-1]


def backfill_command(source: Path, labels: str) -> list[str]:
    """The arguments of a backfill of the source to a file beside it."""
    out = source.with_suffix(".out.jsonl")
    return ["-m", "tagmill", "backfill", str(source), "-l", labels, "--out", str(out), "--json"]


class Ran(NamedTuple):
    """A backfill that was run to its end."""

    report: dict[str, Any]
    seconds: float
    cpu_s: float
    """Of the command alone."""
    rss_mb: float
    """At its peak."""


def run_backfill(arguments: list[str], environ: Mapping[str, str], log: Path) -> Ran:
    """Run the command to its end.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    began = time.perf_counter()
    process = start(arguments, environ, log)
    try:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        stop(process)
    took_s = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"the backfill ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    report = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return Ran(report, took_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _measure(source: Path, environ: Mapping[str, str], folder: Path, plan: Plan) -> dict[str, Any]:
    ran = run_backfill(backfill_command(source, _LABELS), environ, folder / "backfill.log")
    return {
        "rows": plan.rows,
        "questions": ran.report["questions"],
        "rows_per_s": round(plan.rows / ran.seconds),
        "seconds": round(ran.seconds, 1),
        "producer_rss_mb": round(ran.rss_mb),
        "producer_cpu_us_per_row": round(1e6 * ran.cpu_s / plan.rows, 1),
        "job_file_mb": round(sum(path.stat().st_size for path in (folder / "jobs").iterdir()) / 1e6),
        "source_mb": round(source.stat().st_size / 1e6),
    }


def _write(path: Path, plan: Plan, *, first: int = 0) -> None:
    """The rows; which of them repeat is spread evenly. Those of another ``first`` have other texts."""
    distinct = max(1, round(plan.rows * (1 - plan.repeated)))
    with path.open("w", encoding="utf-8") as file:
        for number in range(plan.rows):
            text = _TEXT.format(f"{first + number % distinct:09d}")
            file.write(json.dumps({"id": f"T-{number}", "text": text}, ensure_ascii=False) + "\n")


def start(arguments: list[str], environ: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """A Python process with these arguments, which says what it says to the log."""
    with log.open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, *arguments], env={**os.environ, **environ}, stdout=sink, stderr=subprocess.STDOUT
        )
