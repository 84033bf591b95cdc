"""This engine beside transformers' zero-shot pipeline and the articles' padded code: same model, same pairs, same run.

Every contender lives in a process of its own. Each round takes another third of the texts and lets one contender after
the other answer it, so that a machine whose speed drifts moves all of them; the medians of the rounds' ratios are
quoted. Ratios are of CPU time on a CPU and of wall time on a GPU.
"""

import multiprocessing
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import Contender, Scores, Setup, Timing, median
from benchmarks.workload import workload

RIVALS: Final = ("pipeline", "padded128", "padded256", "padded512")
CACHES: Final = "+caches"
ROUNDS: Final = 3
_PADDED_REQUESTS: Final = 4
"""The articles' code takes seconds for a request: it answers so many of each round, and is held against the pipeline
on the same ones."""

Row = dict[str, Any]
Echo = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    device: str
    size: str
    threads: int
    requests: int
    view: int = 16
    """Requests that this engine sees at once."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """The first is what the others are held against."""
        return ("float32", "bfloat16", "int8") if self.device == "cpu" else ("float32", "bfloat16", "float16")

    def seconds(self, timing: Timing) -> float:
        """What counts: CPU time, or wall time where a GPU works."""
        return timing.cpu_s if self.device == "cpu" else timing.wall_s


@dataclass(slots=True, kw_only=True)
class Standing:
    """What a contender did so far."""

    timings: list[Timing] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    max_abs_diff: float = 0.0

    def enter(self, timing: Timing, *, ratio: float, exact: Sequence[Scores]) -> None:
        """Note a round."""
        self.timings.append(timing)
        self.ratios.append(ratio)
        self.max_abs_diff = max(self.max_abs_diff, difference(timing.scores, exact))


def run(plan: Plan, *, echo: Echo) -> dict[str, Any]:
    """Figures of every contender, and of the machine."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        checkpoint = checkpoint_of(plan.size, folder)
        processes: dict[str, Process] = {}
        for name in (*RIVALS, *plan.precisions):
            processes[name] = stack.enter_context(Process(name, checkpoint, folder / "cache", plan))
            echo(f"{name}: loaded in {processes[name].load_s:.1f} s")
        peaks = {precision: processes[precision].call(Contender.gemm_peak, precision) for precision in plan.precisions}
        echo(f"GEMM peak, GFLOP/s: {', '.join(f'{name} {peak:.0f}' for name, peak in peaks.items())}")
        standings = _race(plan, processes, echo) | _race_with_caches(plan, processes, echo)
        rows = {name: _row(plan, name, standing, processes, peaks) for name, standing in standings.items()}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "device": plan.device,
        "size": plan.size,
        "threads": plan.threads,
        "ratio_of": "CPU seconds" if plan.device == "cpu" else "wall seconds",
        "rounds": ROUNDS,
        "requests": plan.requests,
        "gemm_peak_gflops": {name: round(peak) for name, peak in peaks.items()},
        "rows": rows,
    }


class Process:
    """A contender in a process of its own, which ends with the block."""

    def __init__(self, name: str, checkpoint: Path, cache_dir: Path, plan: Plan) -> None:
        setup = Setup(
            name=name,
            checkpoint=checkpoint,
            cache_dir=cache_dir,
            device=plan.device,
            threads=plan.threads,
            view=plan.view,
        )
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=Contender.open,
            initargs=(setup,),
        )
        self.load_s: float = self.call(Contender.load_s)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """What it answers there."""
        return self._executor.submit(function, *arguments).result()


def _race(plan: Plan, processes: Mapping[str, Process], echo: Echo) -> dict[str, Standing]:
    """No caches: texts that are new, so that no contender can spare itself a pair."""
    fresh = [request for request in workload(requests=plan.requests) if request.kind == "fresh"]
    for name, process in processes.items():  # kernels and memory in place
        process.call(Contender.answer, fresh[: 1 if name in RIVALS else plan.view])
    standings = {name: Standing() for name in processes}
    for number in range(ROUNDS):
        requests = fresh[number::ROUNDS]
        reference: list[Timing] = processes["pipeline"].call(Contender.answer_each, requests)
        exact = [scores for timing in reference for scores in timing.scores]
        for name, process in processes.items():
            asked = requests[:_PADDED_REQUESTS] if name.startswith("padded") else requests
            timing = _sum(reference) if name == "pipeline" else process.call(Contender.answer, asked)
            ratio = sum(map(plan.seconds, reference[: len(asked)])) / plan.seconds(timing)
            standings[name].enter(timing, ratio=ratio, exact=exact)
            echo(f"round {number + 1}: {name} {ratio:.2f} x")
    return standings


def _race_with_caches(plan: Plan, processes: Mapping[str, Process], echo: Echo) -> dict[str, Standing]:
    """The whole workload with its repeats; a repeat costs the pipeline what the same request cost it at first."""
    requests = workload(requests=plan.requests)
    distinct = list({(request.text, request.labels): request for request in requests}.values())
    firsts: list[Timing] = processes["pipeline"].call(Contender.answer_each, distinct)
    by_question = {(r.text, r.labels): timing for r, timing in zip(distinct, firsts, strict=True)}
    reference = [by_question[request.text, request.labels] for request in requests]
    exact = [scores for timing in reference for scores in timing.scores]
    standings = {f"{precision}{CACHES}": Standing() for precision in plan.precisions}
    for _ in range(ROUNDS):
        for name, standing in standings.items():
            timing = processes[name.removesuffix(CACHES)].call(Contender.answer_with_caches, requests)
            ratio = sum(map(plan.seconds, reference)) / plan.seconds(timing)
            standing.enter(timing, ratio=ratio, exact=exact)
            echo(f"{name} {ratio:.2f} x")
    return standings


def _row(
    plan: Plan, name: str, standing: Standing, processes: Mapping[str, Process], peaks: Mapping[str, float]
) -> Row:
    timings, process = standing.timings, processes[name.removesuffix(CACHES)]
    gflops = median([t.gflop / plan.seconds(t) for t in timings], 1)
    row: Row = {
        "ratio": median(standing.ratios, 2),
        "ratios": [round(ratio, 2) for ratio in standing.ratios],
        "pairs_per_cpu_s": median([t.pairs / t.cpu_s for t in timings], 1),
        "pairs_per_s": median([t.pairs / t.wall_s for t in timings], 1),
        "tokens_per_s": median([t.tokens / t.wall_s for t in timings], 0),
        "gflops": gflops,
        "peak_share": round(gflops / peaks.get(name.removesuffix(CACHES), peaks["float32"]), 3),
        "padding_share": round(1 - sum(t.tokens for t in timings) / sum(t.computed_tokens for t in timings), 3),
        "max_abs_diff": float(f"{standing.max_abs_diff:.2g}"),
        "rss_mb": round(process.call(Contender.peak_mb)),
        "load_s": round(process.load_s, 2),
    }
    if plan.device != "cpu":
        row["device_mb"] = round(process.call(Contender.device_peak_mb))
    return row


def _sum(timings: Sequence[Timing]) -> Timing:
    """Of requests that were answered one by one."""
    return Timing(
        cpu_s=sum(t.cpu_s for t in timings),
        wall_s=sum(t.wall_s for t in timings),
        pairs=sum(t.pairs for t in timings),
        tokens=sum(t.tokens for t in timings),
        computed_tokens=sum(t.computed_tokens for t in timings),
        gflop=sum(t.gflop for t in timings),
        scores=[scores for t in timings for scores in t.scores],
    )


def difference(scores: Sequence[Scores], exact: Sequence[Scores]) -> float:
    """The largest between two scores of one label; `scores` may be those of the first few requests only."""
    return max(
        abs(mine - theirs)
        for some, right in zip(scores, exact, strict=False)
        for mine, theirs in zip(some, right, strict=True)
    )


def checkpoint_of(size: str, folder: Path) -> Path:
    """A checkpoint of this size: the demo model's, or one with random weights that is made in `folder`."""
    if size == "demo":
        from workers.engines.catalogue import DEMO_MODEL

        return DEMO_MODEL
    from benchmarks.checkpoints import make_checkpoint

    return make_checkpoint(folder / size, size)


def commit() -> str:
    """Of this checkout, or nothing where it is none."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def machine() -> str:
    """The processor and how many of its cores we may use."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
