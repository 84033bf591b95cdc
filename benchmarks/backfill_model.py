"""What a backfill with the demo model gains on a loop over transformers' zero-shot pipeline, and by what.

    rows a second of the whole command
      = those of the loop x batching x precision x dedupe x caches x rest

Batching and precision are timed: the same rows through the loop, through this engine in float32 with 64 rows in view,
and through it in another precision, every text of them once, one contender after the other. Dedupe and caches are
counted, from the backfill's own report: rows for each text, and pairs that were asked for each that was computed.
What is left over is *rest*: reading, the job file, the queue, the ledger and the output, which cost, less what longer
batches save.

The backfill runs between two rounds of the loop, with as many threads for its engine. It is done twice: first nothing
is known, then one of the labels has been renamed.
"""

import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import engine as engines
from benchmarks.backfill import Deployment, backfill_command, run_backfill, served
from benchmarks.contenders import Contender, Scores, Timing
from benchmarks.queue import cpu_of_tree_s
from benchmarks.tickets import tickets
from benchmarks.workload import Request
from producers.publisher import Publisher
from tagging.names import TAG_TICKET
from tagging.settings import load

ROUNDS: Final = 3
LABELS: Final = ("物流配送", "退款退货", "支付扣款", "账号登录", "发票", "商品质量", "客服态度", "其他")
_RENAMED: Final = (*LABELS[:-1], "都不是")
_VIEW: Final = 64
_LOADED_S: Final = 300.0
_LOOP: Final = "pipeline"
_BATCHED_LOOP: Final = "pipeline16"
_EXACT: Final = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rows: int
    sample: int
    """Rows that the loop is timed on."""
    threads: int
    precision: str
    """Of the backfill's worker."""


class Cost(NamedTuple):
    """Seconds for a row."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A backfill that is done."""

    cost: Cost
    report: Mapping[str, Any]


def run(plan: Plan, *, echo: Callable[[str], None]) -> dict[str, Any]:
    """Rows a second of the loop and of the backfill, and the factors between them, of wall time and of CPU time.

    Raises:
        RuntimeError: A backfill failed, or the worker does not answer.
    """
    texts = tickets(plan.rows)
    parts = [_requests(part) for part in _sample(texts, plan.sample)]
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        race = _Race(plan, cache, stack, echo)
        race.run(parts[0])
        deployment = stack.enter_context(
            served(
                "demo",
                model__precision=plan.precision,
                model__threads=plan.threads,
                model__cache_dir=cache,
            )
        )
        _wait_until_loaded(deployment)
        source = deployment.folder / "tickets.jsonl"
        _write(source, texts)
        cold = _backfill(deployment, source, LABELS, "cold")
        echo(f"backfill: {1 / cold.cost.wall_s:,.0f} rows/s")
        race.run(parts[1])
        relabelled = _backfill(deployment, source, _RENAMED, "relabelled")
        echo(f"one label renamed: {1 / relabelled.cost.wall_s:,.0f} rows/s")
        race.run(parts[2])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": engines.commit(),
        "machine": engines.machine(),
        "rows": plan.rows,
        "texts": len(set(texts)),
        "labels": len(LABELS),
        "threads": plan.threads,
        "precision": plan.precision,
        "loop": {"sample": plan.sample, **race.figures(_LOOP)},
        "loop_batch_size_16": {"sample": plan.sample, **race.figures(_BATCHED_LOOP)},
        "max_score_difference_to_loop": race.differences,
        "backfill": _figures(plan, race, cold),
        "one_label_renamed": _figures(plan, race, relabelled),
    }


class _Race:
    """The contenders, each in processes of its own, and what a row cost each of them in each round."""

    def __init__(self, plan: Plan, cache: Path, stack: ExitStack, echo: Callable[[str], None]) -> None:
        checkpoint = engines.checkpoint_of("demo", cache)
        self._echo = echo
        self._processes: dict[tuple[str, int], engines.Process] = {}
        self._costs: dict[tuple[str, int], list[Cost]] = {}
        self._differences: dict[str, float] = {}
        # Threads that wait for one another are slower than one on a busy machine: the loop may have either.
        loops = [(name, threads) for name in (_LOOP, _BATCHED_LOOP) for threads in sorted({1, plan.threads})]
        for name, threads in [*loops, *((precision, plan.threads) for precision in {_EXACT: 0, plan.precision: 0})]:
            setup = engines.Plan(device="cpu", size="demo", threads=threads, requests=0, view=_VIEW)
            process = stack.enter_context(engines.Process(name, checkpoint, cache, setup))
            process.call(Contender.answer, _requests(["付款后一直没有发货"]))
            self._processes[name, threads] = process
            self._costs[name, threads] = []

    def run(self, requests: Sequence[Request]) -> None:
        """A round: these rows, one contender after the other."""
        exact: list[Scores] = []
        for key, process in self._processes.items():
            timing: Timing = process.call(Contender.answer, requests)
            exact = exact or timing.scores  # the loop is the first
            difference = engines.difference(timing.scores, exact)
            self._differences[key[0]] = max(self._differences.get(key[0], 0.0), difference)
            self._costs[key].append(Cost(timing.wall_s / len(requests), timing.cpu_s / len(requests)))
            self._echo(f"{key[0]}, {key[1]} threads: {len(requests) / timing.wall_s:,.1f} rows/s")

    def cost(self, name: str, *, of: str) -> float:
        """Wall or CPU seconds for a row: the median of the rounds, with the number of threads that is best at it."""
        medians: list[float] = [
            statistics.median(getattr(cost, of) for cost in costs)
            for (contender, _), costs in self._costs.items()
            if contender == name
        ]
        return min(medians)

    @property
    def differences(self) -> dict[str, float]:
        """How far scores were from the loop's at most, by contender."""
        return {name: float(f"{value:.2g}") for name, value in self._differences.items() if name != _LOOP}

    def figures(self, name: str) -> dict[str, Any]:
        """As they are printed."""
        return {
            "rows_per_s": round(1 / self.cost(name, of="wall_s"), 1),
            "cpu_ms_per_row": round(1000 * self.cost(name, of="cpu_s"), 2),
            "rows_per_s_by_threads": {
                str(threads): [round(1 / cost.wall_s, 1) for cost in costs]
                for (contender, threads), costs in self._costs.items()
                if contender == name
            },
        }


def _figures(plan: Plan, race: _Race, ran: Ran) -> dict[str, Any]:
    report = ran.report
    return {
        "rows_per_s": round(1 / ran.cost.wall_s, 1),
        "cpu_ms_per_row": round(1000 * ran.cost.cpu_s, 2),
        "questions": report["questions"],
        "pairs": report["pairs"],
        "computed": report["computed"],
        "factors": _factors(plan, race, ran, of="wall_s"),
        "factors_of_cpu_time": _factors(plan, race, ran, of="cpu_s"),
        "to_loop_batch_size_16": round(race.cost(_BATCHED_LOOP, of="wall_s") / ran.cost.wall_s, 2),
        "to_loop_batch_size_16_of_cpu_time": round(race.cost(_BATCHED_LOOP, of="cpu_s") / ran.cost.cpu_s, 2),
    }


def _factors(plan: Plan, race: _Race, ran: Ran, *, of: str) -> dict[str, float]:
    """What multiplies to the whole."""
    loop, exact, precise = (race.cost(name, of=of) for name in (_LOOP, _EXACT, plan.precision))
    whole = loop / getattr(ran.cost, of)
    gains = {
        "batching": loop / exact,
        "precision": exact / precise,
        "dedupe": ran.report["read"] / ran.report["questions"],
        "caches": ran.report["pairs"] / ran.report["computed"],
    }
    factors = {**gains, "rest": whole / prod(gains.values()), "whole": whole}
    return {name: round(factor, 2) for name, factor in factors.items()}


def _backfill(deployment: Deployment, source: Path, labels: Sequence[str], job: str) -> Ran:
    arguments = [*backfill_command(source, ",".join(labels)), "--job", job]
    before_s = cpu_of_tree_s(deployment.worker)
    done = run_backfill(arguments, deployment.environ, deployment.folder / f"{job}.log")
    cpu_s = done.cpu_s + cpu_of_tree_s(deployment.worker) - before_s
    rows = done.report["read"]
    return Ran(cost=Cost(done.seconds / rows, cpu_s / rows), report=done.report)


def _wait_until_loaded(deployment: Deployment) -> None:
    message = {"text": "付款后一直没有发货", "labels": list(LABELS[:2])}
    with closing(Publisher(load(environ=deployment.environ).settings)) as publisher:
        task_id = publisher.publish(TAG_TICKET, message)
        answer = dict(publisher.answers([task_id], timeout_s=_LOADED_S))[task_id]
    if "error" in answer:
        log = (deployment.folder / "worker.log").read_text(encoding="utf-8")
        raise RuntimeError(f"{answer['error']}\n{log[-2000:]}")


def _sample(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    """Rows for each round, drawn at random. A text that is drawn again gets a number, so that nobody is spared it."""
    rows: dict[str, None] = {}
    for number, text in enumerate(random.Random(2).sample(texts, size)):
        rows[text if text not in rows else f"{text} {number}"] = None
    for number in range(ROUNDS):
        yield list(rows)[number::ROUNDS]


def _requests(texts: Iterable[str]) -> list[Request]:
    return [Request(text=text, labels=LABELS, kind="fresh") for text in texts]


def _write(path: Path, texts: Sequence[str]) -> None:
    lines = (json.dumps({"id": f"T-{n}", "text": text}, ensure_ascii=False) + "\n" for n, text in enumerate(texts))
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
