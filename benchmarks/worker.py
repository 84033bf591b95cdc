"""How much of its engine's speed a worker keeps: the same texts through the engine alone and through queue and worker.

`engine`: its own process, asked for as many texts at once as a batch holds. `worker`: one text a message through a real
Redis, results stored, events on, caches and ledger written. The queue is filled first; the clock runs from the first
tenth of the answers to the last. Rounds take turns; each has texts that no round has seen.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.engine import checkpoint_of
from benchmarks.workload import Request, views, workload
from producers.publisher import Publisher
from tagging.names import TAG_TICKET
from tagging.settings import load
from tagmill.embedded import end_on_signals, redis_server, stop
from workers.app import build_engine
from workers.ports import Pair

ROUNDS: Final = 3
_LIMIT_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    device: str
    size: str
    precision: str
    threads: int
    texts: int


def run(plan: Plan, *, echo: Callable[[str], None]) -> dict[str, Any]:
    """Pairs a second of both, and the worker's share."""
    end_on_signals()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        store = stack.enter_context(redis_server(folder / "redis"))
        environ = {
            "TAGMILL_BROKER__URL": store.url(0),
            "TAGMILL_RESULTS__URL": store.url(1),
            "TAGMILL_CACHE__URL": store.url(2),
            "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
            "TAGMILL_MODEL__NAME": str(checkpoint_of(plan.size, folder)),
            "TAGMILL_MODEL__CACHE_DIR": str(folder / "cache"),
            "TAGMILL_MODEL__DEVICE": plan.device,
            "TAGMILL_MODEL__PRECISION": plan.precision,
            "TAGMILL_MODEL__THREADS": str(plan.threads),
            "TAGMILL_MODEL__SELF_TEST": "false",
            "TAGMILL_LOG__LEVEL": "warning",
        }
        rates: dict[str, list[float]] = {"engine": [], "worker": []}
        for number in range(ROUNDS):
            for name, measure in (("engine", _engine), ("worker", _worker)):
                texts = _texts(plan.texts, seed=2 * number + (name == "worker"))
                rates[name].append(measure(environ, texts, redis.Redis(port=store.port, db=1), folder))
                echo(f"round {number + 1}: {name} {rates[name][-1]:,.1f} pairs/s")
    medians = {name: statistics.median(runs) for name, runs in rates.items()}
    return {
        "device": plan.device,
        "size": plan.size,
        "precision": plan.precision,
        "threads": plan.threads,
        "texts": plan.texts,
        **{f"{name}_pairs_per_s": round(rate, 1) for name, rate in medians.items()},
        "worker_share": round(medians["worker"] / medians["engine"], 3),
    }


def _texts(count: int, *, seed: int) -> list[Request]:
    return [r for r in workload(requests=3 * count, seed=seed) if r.kind == "fresh"][:count]


def _engine(environ: Mapping[str, str], texts: Sequence[Request], _results: redis.Redis, _folder: Path) -> float:
    loaded = load(environ=environ)
    with closing(build_engine(loaded)) as engine:
        engine.entail(_pairs(texts[:1]))
        began = time.perf_counter()
        for view in views(texts, loaded.settings.batching.max_messages):
            engine.entail(_pairs(view))
        return sum(r.pairs for r in texts) / (time.perf_counter() - began)


def _worker(environ: Mapping[str, str], texts: Sequence[Request], results: redis.Redis, folder: Path) -> float:
    results.flushdb()
    with closing(Publisher(load(environ=environ).settings)) as publisher:
        publisher.publish_all(
            (TAG_TICKET, {"text": request.text, "labels": list(request.labels)}, f"{time.time_ns()}-{number}")
            for number, request in enumerate(texts)
        )
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tagmill", "worker", "-l", "ERROR"],
            env={**os.environ, **environ},
            stdout=log,
            stderr=log,
        )
    try:
        counted_from, began = _wait_for(len(texts) // 10, results, process)
        counted_to, ended = _wait_for(len(texts), results, process)
    finally:
        stop(process, grace_s=60)
    mean_pairs = sum(r.pairs for r in texts) / len(texts)
    return (counted_to - counted_from) * mean_pairs / (ended - began)


def _wait_for(answers: int, results: redis.Redis, process: "subprocess.Popen[bytes]") -> tuple[int, float]:
    """How many answers there are once there are so many, and when."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if (count := int(results.dbsize())) >= answers:
            return count, time.monotonic()
        time.sleep(0.005)
    raise RuntimeError(f"the worker stopped answering, with exit code {process.poll()}")


def _pairs(requests: Sequence[Request]) -> list[Pair]:
    return [Pair(request.text, label) for request in requests for label in request.labels]
