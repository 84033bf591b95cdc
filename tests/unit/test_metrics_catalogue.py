"""The catalogue of metrics is bounded, explained, on its page, and what the pipeline reports adds up."""

import re
from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.documents import Document
from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError, TagmillError
from tests.commands import ROOT
from tests.pipelines import CountingEngine, many, message, pipeline, raw, run
from workers.engines.fake import FakeEngine
from workers.metrics import (
    BATCH_MESSAGES,
    CATALOGUE,
    ENGINE_FAILURES,
    MESSAGES,
    PADDED_TOKENS,
    PAGE_COMMAND,
    PAIRS,
    QUEUE_SECONDS,
    TEXTS,
    TOKENS,
    Metric,
    page,
)
from workers.ports import Entailment, Pair
from workers.recall import Recall
from workers.stores.memory import MemoryMeter, MemoryPairCache, MemoryTagStore

UNITS = ("messages", "texts", "pairs", "tokens", "seconds", "failures", "passes", "calls", "letters", "write_backs")
by_name = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


class Failing(FakeEngine):
    """Fails every pass with this."""

    def __init__(self, error: EngineError) -> None:
        super().__init__()
        self._error = error

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        raise self._error


class Sick(CountingEngine):
    """Fails every pass that holds the text `sick`."""

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        if any(pair.text == "sick" for pair in pairs):
            raise EngineError("the device failed")
        return super().entail(pairs)


def test_is_on_its_page() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == page(), f"run `{PAGE_COMMAND}`"


@by_name
def test_a_name_ends_in_its_unit(metric: Metric) -> None:
    assert metric.unit in UNITS
    stem = metric.name.removesuffix("_total")
    assert re.fullmatch(r"tagmill_[a-z_]+", metric.name)
    assert stem.endswith(f"_{metric.unit}") or metric.unit in {"failures", "calls", "letters", "pairs"}
    assert metric.name.endswith("_total") == (metric.kind == "counter")


@by_name
def test_a_metric_has_few_series_and_none_named_after_who_or_where(metric: Metric) -> None:
    series = 1
    for values in metric.labels.values():
        series *= len(values)
    assert series <= 10
    assert not metric.labels.keys() & {"host", "pid", "text", "ticket", "ref", "id", "worker"}


@by_name
def test_a_metric_says_what_it_is_and_what_to_do(metric: Metric) -> None:
    assert metric.about.endswith(".")
    assert metric.use.endswith(".")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)


def test_names_are_unique() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


texts = st.sampled_from(["a", "b", "c", "sick", ""])
labels = st.lists(st.sampled_from("wxyz"), min_size=1, max_size=4, unique=True)
batches = st.lists(st.lists(st.tuples(texts, labels), min_size=1, max_size=5), min_size=1, max_size=4)


@given(batches, st.sets(st.integers(0, 3)))
def test_the_answers_of_pairs_add_up_to_the_pairs_asked_for(asked, by_the_other) -> None:
    """Batches of two workers on one Redis, of which the other may die with its claims."""
    engine, meter, shared = Sick(), MemoryMeter(), MemoryPairCache()
    now = count()  # each look at the clock is a second, so that every wait ends
    recalls = [
        Recall(local=MemoryPairCache(), shared=shared, wait_ms=3000, meter=meter, clock=lambda: next(now), pause=id)
        for _ in range(2)
    ]
    ours, other = pipeline(engine, recalls[0], meter=meter), pipeline(Sick(), recalls[1])
    for i, batch in enumerate(asked):
        messages = [message(text, id_=f"{i}.{j}", labels=labels) for j, (text, labels) in enumerate(batch)]
        if i in by_the_other:
            other.prepare(messages)
        run(ours, *messages)
    pairs = [(text, label) for batch in asked for text, labels in batch if text for label in labels]
    assert meter.total(PAIRS) == len(pairs)
    assert meter.total(PAIRS, answer="failed") == sum(text == "sick" for text, _ in pairs)
    assert meter.total(PAIRS, answer="computed") == len(engine.asked)
    assert meter.total(TOKENS) == engine.tokens
    assert meter.total(TEXTS) == sum(bool(text) for batch in asked for text, _ in batch)
    assert meter.total(MESSAGES) == sum(map(len, asked))


def test_messages_are_counted_by_what_became_of_them() -> None:
    meter = MemoryMeter()
    store = MemoryTagStore()
    store.erase(Document("api", "T-1", "ticket"))
    through = pipeline(Sick(), Recall(local=MemoryPairCache(), meter=meter), meter=meter, store=store)
    run(through, message("well"), message("sick"), message("sick", id_="2", attempts=2), raw({}, id_="3"), many("x"))
    run(through, message("gone", ref="T-1"))
    through.give_up([message("any")], TagmillError("unexpected"))
    outcomes = {outcome: meter.total(MESSAGES, outcome=outcome) for outcome in MESSAGES.labels["outcome"]}
    assert outcomes == {"tagged": 2, "retried": 2, "dead": 2, "refused": 1}
    assert meter.total(MESSAGES, lane="bulk") == 1
    assert (meter.values(BATCH_MESSAGES), meter.total(BATCH_MESSAGES)) == (2, 6)
    assert meter.values(QUEUE_SECONDS) == 7


@pytest.mark.parametrize(
    ("error", "cause"), [(EngineDied, "died"), (DeviceOutOfMemory, "out_of_memory"), (EngineError, "other")]
)
def test_failures_of_the_engine_are_counted_by_cause(error: type[EngineError], cause: str) -> None:
    meter = MemoryMeter()
    run(pipeline(Failing(error("!")), Recall(local=MemoryPairCache(), meter=meter), meter=meter), message("text"))
    assert meter.total(ENGINE_FAILURES, cause=cause) == meter.total(ENGINE_FAILURES) == 1


def test_padding_is_counted_beside_the_tokens() -> None:
    meter = MemoryMeter()
    through = pipeline(CountingEngine(), Recall(local=MemoryPairCache(), meter=meter), meter=meter)
    run(through, message("short"), message("rather much longer"))
    assert meter.total(PADDED_TOKENS) > meter.total(TOKENS) > 0
