"""Rows a second of a backfill through a real Redis, and its memory, with an engine that costs nothing.

The command is a process of its own, and so is the worker. The clock runs from the start of the command to its end, the
output written: reading, deduplicating, the job file, the intake, the queue, the answers and the file.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tagmill.embedded import end_on_signals, redis_server, stop

_LABELS: Final = "物流配送,退款退货,支付,账号登录,其他"
_TEXT: Final = "订单{}付款后一直显示处理中，麻烦帮忙看一下什么时候可以发货，谢谢"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rows: int
    repeated: float
    """Share of the rows whose text an earlier row has."""


def run(plan: Plan, *, echo: Callable[[str], None]) -> dict[str, Any]:
    """Rows a second, peak memory and CPU time of the command, and its report.

    Raises:
        RuntimeError: The command or the worker failed.
    """
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
            "TAGMILL_MODEL__NAME": "fake",
            "TAGMILL_MODEL__ISOLATE": "false",
            "TAGMILL_LOG__LEVEL": "warning",
        }
        source = folder / "rows.jsonl"
        _write(source, plan)
        worker = _start(["-m", "tagmill", "worker", "-l", "ERROR"], environ, folder / "worker.log")
        stack.callback(stop, worker, grace_s=60)
        echo(f"{plan.rows:,} rows, {source.stat().st_size / 1e6:,.0f} MB")
        return _measure(source, environ, folder, plan)


def _measure(source: Path, environ: Mapping[str, str], folder: Path, plan: Plan) -> dict[str, Any]:
    out, log = folder / "out.jsonl", folder / "backfill.log"
    began = time.perf_counter()
    process = _start(
        ["-m", "tagmill", "backfill", str(source), "-l", _LABELS, "--out", str(out), "--json"], environ, log
    )
    _, status, used = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the backfill ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    report = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    cpu_s = used.ru_utime + used.ru_stime
    return {
        "rows": plan.rows,
        "questions": report["questions"],
        "rows_per_s": round(plan.rows / took_s),
        "seconds": round(took_s, 1),
        "producer_rss_mb": round(used.ru_maxrss / 1024),
        "producer_cpu_us_per_row": round(1e6 * cpu_s / plan.rows, 1),
        "job_file_mb": round(sum(path.stat().st_size for path in (folder / "jobs").iterdir()) / 1e6),
        "source_mb": round(source.stat().st_size / 1e6),
    }


def _write(path: Path, plan: Plan) -> None:
    """The rows; which of them repeat is spread evenly."""
    distinct = max(1, round(plan.rows * (1 - plan.repeated)))
    with path.open("w", encoding="utf-8") as file:
        for number in range(plan.rows):
            text = _TEXT.format(f"{number % distinct:09d}")
            file.write(json.dumps({"id": f"T-{number}", "text": text}, ensure_ascii=False) + "\n")


def _start(arguments: list[str], environ: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, *arguments], env={**os.environ, **environ}, stdout=sink, stderr=subprocess.STDOUT
        )
