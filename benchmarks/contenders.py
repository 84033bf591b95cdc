"""The engines that are compared, each behind the same question: a text and its labels in, a score for each out.

A contender is alone in its process, so that its memory and its CPU time are its own. `pipeline` and `padded*` are what
people run today; everything else is this engine at a precision.
"""

import os
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from benchmarks.workload import Request, views
from tagging import logs
from tagging.names import TAG_TICKET
from workers import scoring
from workers.ports import Engine, Entailment, Pair

Scores = list[float]
_ENTAILMENT: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a contender's process is told."""

    name: str
    checkpoint: Path
    cache_dir: Path
    device: str
    threads: int
    view: int
    """Requests that this engine sees at once; the others take them one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What it took to answer some requests, and what was answered."""

    cpu_s: float
    wall_s: float
    pairs: int
    """Asked for."""
    tokens: int
    """Of the pairs that were computed, without padding."""
    computed_tokens: int
    """With padding."""
    gflop: float
    """What the plain model would do for the pairs that were computed, without padding."""
    scores: list[Scores] = field(repr=False)
    """For each request, in the order of its labels."""


class Answering(Protocol):
    """A contender that is loaded."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pair that was computed so far."""
        ...

    @property
    def computed_tokens(self) -> int:
        """The same in all, with padding."""
        ...

    def scores(self, requests: Sequence[Request]) -> Iterator[Scores]:
        """Scores of a single choice among each request's labels."""
        ...


class Contender:
    """The contender of this process; what the parent calls."""

    _setup: ClassVar[Setup]
    _answering: ClassVar[Answering]
    _load_s: ClassVar[float]

    @classmethod
    def open(cls, setup: Setup) -> None:
        """Load it; called once, when the process starts."""
        began = time.perf_counter()
        cls._setup = setup
        cls._answering = _load(setup)
        cls._load_s = time.perf_counter() - began

    @classmethod
    def load_s(cls) -> float:
        """Seconds to load, imports of the frameworks included."""
        return cls._load_s

    @classmethod
    def answer(cls, requests: Sequence[Request]) -> Timing:
        """Answer the requests, and say what it took."""
        return _timed(cls._answering, requests, _sizes(cls._setup.checkpoint))

    @classmethod
    def answer_each(cls, requests: Sequence[Request]) -> list[Timing]:
        """The same one by one, each with what it took."""
        return [cls.answer([request]) for request in requests]

    @classmethod
    def answer_with_caches(cls, requests: Sequence[Request]) -> Timing:
        """Answer through the worker's pipeline, its memory of pairs empty at first; stores cost next to nothing."""
        engine = cls._answering
        assert isinstance(engine, _OurEngine)
        return _timed(_Cached(engine, view=cls._setup.view), requests, _sizes(cls._setup.checkpoint))

    @classmethod
    def gemm_peak(cls, precision: str) -> float:
        """GFLOP a second at this model's shapes; see `benchmarks.gemm`."""
        from benchmarks.gemm import gemm_peak

        sizes = _sizes(cls._setup.checkpoint)
        return gemm_peak(
            precision,
            hidden=sizes["hidden_size"],
            intermediate=sizes["intermediate_size"],
            device=cls._setup.device,
            threads=cls._setup.threads,
        )

    @classmethod
    def peak_mb(cls) -> float:
        """The largest resident memory of this process so far."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak
        return int(peak[1]) / 1024

    @classmethod
    def device_peak_mb(cls) -> float:
        """The most memory that was taken of the GPU so far; 0 on a CPU."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**20 if cls._setup.device != "cpu" else 0.0


def _load(setup: Setup) -> Answering:
    from workers.engines.build import child_environment

    logs.configure("warning")
    os.environ.update(child_environment(setup.device, setup.threads, os.environ))  # before torch is imported
    import torch

    torch.set_num_threads(setup.threads)
    if setup.name.startswith("pipeline"):
        return _Pipeline(setup, batch_size=int(setup.name.removeprefix("pipeline") or 1))
    if setup.name.startswith("padded"):
        return _Padded(setup, length=int(setup.name.removeprefix("padded")))
    return _OurEngine(setup)


def _timed(answering: Answering, requests: Sequence[Request], sizes: dict[str, Any]) -> Timing:
    done, computed = len(answering.lengths), answering.computed_tokens
    cpu, wall = time.process_time(), time.perf_counter()
    scores = list(answering.scores(requests))
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    lengths = answering.lengths[done:]
    return Timing(
        cpu_s=cpu_s,
        wall_s=wall_s,
        pairs=sum(request.pairs for request in requests),
        tokens=sum(lengths),
        computed_tokens=answering.computed_tokens - computed,
        gflop=sum(_gflop(length, sizes) for length in lengths),
        scores=scores,
    )


def _gflop(tokens: int, sizes: dict[str, Any]) -> float:
    """Multiplications and additions of one pair through all layers; embeddings, norms and the head do not count."""
    hidden, intermediate = sizes["hidden_size"], sizes["intermediate_size"]
    linear = 2 * (4 * hidden * hidden + 2 * hidden * intermediate) * tokens
    attention = 4 * hidden * tokens * tokens
    return float(1e-9 * sizes["num_hidden_layers"] * (linear + attention))


def _sizes(checkpoint: Path) -> dict[str, Any]:
    import json

    sizes: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return sizes


def _converted(setup: Setup) -> Path:
    from workers.engines.checkpoint import read_checkpoint
    from workers.engines.conversion import convert

    return convert(read_checkpoint(setup.checkpoint), setup.cache_dir / "converted")


class _Pipeline:
    """transformers' zero-shot pipeline, float32: one request at a time, as its documentation has it.

    Args:
        setup: The model and where it runs.
        batch_size: The pipeline's own, in pairs. Beyond 1 it is given all requests at once, which then have the same
            labels.
    """

    def __init__(self, setup: Setup, *, batch_size: int) -> None:
        import torch
        from transformers import pipeline

        directory = str(_converted(setup))
        # Half-precision weights would be computed as such.
        self._pipe: Any = pipeline(
            "zero-shot-classification", model=directory, device=setup.device, dtype=torch.float32
        )
        self._batch_size = batch_size
        self.lengths: list[int] = []
        self.computed_tokens = 0

    def scores(self, requests: Sequence[Request]) -> Iterator[Scores]:
        for request, answer in zip(requests, self._answers(requests), strict=True):
            by_label = dict(zip(answer["labels"], answer["scores"], strict=True))
            lengths = _lengths(request)
            self.lengths += lengths
            self.computed_tokens += sum(lengths)  # what is padded where it batches does not count
            yield [by_label[label] for label in request.labels]

    def _answers(self, requests: Sequence[Request]) -> Iterator[Any]:
        if self._batch_size == 1:
            return (self._pipe(r.text, list(r.labels), hypothesis_template="{}") for r in requests)
        [labels] = {request.labels for request in requests}
        texts = [request.text for request in requests]
        return iter(self._pipe(texts, list(labels), hypothesis_template="{}", batch_size=self._batch_size))


class _Padded:
    """The code of the articles: all labels of one text at once, every pair padded to a fixed length."""

    def __init__(self, setup: Setup, *, length: int) -> None:
        import torch
        from transformers import BertForSequenceClassification, BertTokenizer

        directory = _converted(setup)
        self._length = length
        self._device = setup.device
        self._words: Any = BertTokenizer.from_pretrained(directory)
        loaded: Any = BertForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
        self._bert: Any = loaded.eval().to(setup.device)
        self.lengths: list[int] = []
        self.computed_tokens = 0

    def scores(self, requests: Sequence[Request]) -> Iterator[Scores]:
        import torch

        for request in requests:
            texts, labels = [request.text] * len(request.labels), list(request.labels)
            rows = self._words(
                texts, labels, padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
            ).to(self._device)
            with torch.no_grad():
                logits = self._bert(**rows).logits
            self.lengths += rows["attention_mask"].sum(dim=1).tolist()
            self.computed_tokens += self._length * len(labels)
            yield torch.softmax(logits[:, _ENTAILMENT], dim=0).tolist()


class _OurEngine:
    """This engine at a precision, with several requests in view."""

    def __init__(self, setup: Setup) -> None:
        from workers.engines.build import build_engine

        self._view = setup.view
        self.engine: Engine = build_engine(
            str(setup.checkpoint),
            device=setup.device,
            precision=setup.name,
            threads=setup.threads,
            cache_dir=setup.cache_dir,
            in_process=True,
            check=False,
        )
        self.lengths: list[int] = []
        self.computed_tokens = 0

    @property
    def info(self) -> Any:
        """Of the engine."""
        return self.engine.info

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        """As the engine, and noted."""
        entailment = self.engine.entail(pairs)
        self.lengths += entailment.tokens
        self.computed_tokens += entailment.padded_tokens
        return entailment

    def close(self) -> None:
        """Free the device."""
        self.engine.close()

    def scores(self, requests: Sequence[Request]) -> Iterator[Scores]:
        for view in views(requests, self._view):
            logits = iter(self.entail([Pair(r.text, label) for r in view for label in r.labels]).logits)
            for request in view:
                yield scoring.score([next(logits) for _ in request.labels], multi_label=False)


class _Cached:
    """The same engine behind the worker's own pipeline and its memory of pairs."""

    def __init__(self, engine: _OurEngine, *, view: int) -> None:
        from tagging.labels import LabelBook
        from tagging.messages import Decoder
        from workers.pipeline import Pipeline
        from workers.recall import Recall
        from workers.stores.local_pairs import LocalPairCache
        from workers.stores.memory import MemoryCrashes, MemoryDeadLetters, MemoryMeter, MemoryTagStore

        self._engine = engine
        self._view = view
        meter = MemoryMeter()
        self._pipeline = Pipeline(
            engine=engine,
            decoder=Decoder(book=LabelBook(), model=engine.info.name, default_template="{}"),
            recall=Recall(local=LocalPairCache(max_entries=100_000, ttl_s=3600), shared=None, wait_ms=0, meter=meter),
            store=MemoryTagStore(),
            dead_letters=MemoryDeadLetters(),
            crashes=MemoryCrashes(),
            max_attempts=1,
            meter=meter,
        )

    @property
    def lengths(self) -> list[int]:
        """Of the pairs that reached the engine."""
        return self._engine.lengths

    @property
    def computed_tokens(self) -> int:
        """Of the engine."""
        return self._engine.computed_tokens

    def scores(self, requests: Sequence[Request]) -> Iterator[Scores]:
        from workers.verdicts import Tagged
        from workers.work import Delivery

        for view in views(requests, self._view):
            work = self._pipeline.prepare(
                [
                    Delivery(
                        id=str(number),
                        task=TAG_TICKET,
                        queue="tag.tickets",
                        args=[{"text": request.text, "labels": list(request.labels)}],
                        kwargs={},
                        attempts=0,
                        queued_ms=0.0,
                    )
                    for number, request in enumerate(view)
                ]
            )
            if work.needs_device:
                self._pipeline.infer(work)
            for verdict in self._pipeline.record(work):
                assert isinstance(verdict, Tagged), verdict
                yield verdict.result["scores"]


def _lengths(request: Request) -> list[int]:
    """Tokens of a request's pairs: a character is a token, and each pair has three special ones."""
    return [len(request.text) + len(label) + 3 for label in request.labels]


def median(values: Sequence[float], digits: int) -> float:
    """Rounded."""
    return round(statistics.median(values), digits)
