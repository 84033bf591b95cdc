"""A Pipeline gives each delivery its verdict, whatever its neighbours do, and records before it returns."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.documents import Document
from tagging.errors import EngineDied, EngineError, StoreUnavailable, TagmillError, WorkerCrashed
from tagging.names import TAG_COMMENT, TAG_MANY, TAG_TICKET
from tests.pipelines import LABELS, CountingEngine, many, message, pipeline, raw, run, tagged
from workers.engines.fake import FakeEngine
from workers.metrics import PAIRS
from workers.ports import DeadLetter, Entailment, KnownPairs, Logit, Pair, Sought, Stored
from workers.recall import Recall
from workers.stores.memory import MemoryDeadLetters, MemoryMeter, MemoryPairCache, MemoryTagStore
from workers.verdicts import Dead, Refused, Retry, Tagged, Verdict
from workers.work import Delivery

POISON = "poison"


class Poisoned(CountingEngine):
    """Fails every pass that holds a poisonous text."""

    def __init__(self, error: type[EngineError] = EngineError) -> None:
        super().__init__()
        self._error = error

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        entailment = super().entail(pairs)
        if any(POISON in pair.text for pair in pairs):
            raise self._error("the device failed")
        return entailment


class Patient(FakeEngine):
    """Fails on a poisonous text from the second time."""

    def __init__(self) -> None:
        super().__init__()
        self._met = False

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        if self._met:
            raise EngineError("the device failed")
        self._met = any(POISON in pair.text for pair in pairs)
        return super().entail(pairs)


class Insane(FakeEngine):
    """Answers NaN or Inf for a poisonous text."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        well = super().entail(pairs)
        return Entailment(
            logits=[
                Logit(self._value, 0.0) if POISON in p.text else logit
                for p, logit in zip(pairs, well.logits, strict=True)
            ],
            tokens=well.tokens,
            padded_tokens=well.padded_tokens,
            device_ms=well.device_ms,
            readings=well.readings,
        )


class AwayOnce(MemoryTagStore):
    """Cannot be reached the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, rows: Sequence[Stored], *, done: Sequence[str] = ()) -> frozenset[Document]:
        self.writes += 1
        if self.writes == 1:
            raise StoreUnavailable("the database is away")
        return super().write(rows, done=done)


class Forgetful(MemoryTagStore):
    """Takes answers and cannot be read."""

    def known(self, sought: Sequence[Sought]) -> KnownPairs:
        raise StoreUnavailable("the database is away")


class Bench:
    """A pipeline over the ports' twins in memory."""

    def __init__(
        self, engine: FakeEngine | None = None, *, store: MemoryTagStore | None = None, max_attempts: int = 3
    ) -> None:
        self.engine = engine or Poisoned()
        self.store = store or MemoryTagStore()
        self.dead_letters = MemoryDeadLetters()
        self.cache = MemoryPairCache()
        self.meter = MemoryMeter()
        self.pipeline = pipeline(
            self.engine,
            Recall(local=self.cache, meter=self.meter),
            store=self.store,
            dead_letters=self.dead_letters,
            max_attempts=max_attempts,
            meter=self.meter,
            clock=lambda: 0.0,
        )

    def run(self, *deliveries: Delivery) -> list[Verdict]:
        return run(self.pipeline, *deliveries)

    @property
    def parked(self) -> list[DeadLetter]:
        return self.dead_letters.parked


def test_verdicts_come_in_the_order_of_the_deliveries() -> None:
    verdicts = Bench().run(*(message(f"text {i}") for i in range(5)))
    assert [tagged(v)["id"] for v in verdicts] == [f"text {i}" for i in range(5)]


def test_an_empty_batch_has_no_verdicts() -> None:
    assert Bench().run() == []


def test_what_is_tagged_stands_in_the_store() -> None:
    bench = Bench()
    answer = tagged(*bench.run(message("hello", task=TAG_COMMENT, ref="C-1")))
    (row,) = bench.store.by_ref("C-1")
    assert (row.answer, row.kind) == (answer, "comment")


def test_the_same_text_twice_in_a_batch_is_asked_once() -> None:
    bench = Bench(engine := Poisoned())
    first, second = bench.run(message("same", id_="1"), message("same", id_="2"))
    assert tagged(first)["scores"] == tagged(second)["scores"]
    assert engine.passes == [[Pair("same", "billing"), Pair("same", "login")]]


def test_an_answer_says_how_a_long_text_was_read() -> None:
    long = "x" * 1000
    verdicts = Bench().run(message("short"), message(long), message(long, id_="windows", long_text="max", overlap=0))
    read = [(a["long_text"], a["windows"], a["truncated"]) for a in map(tagged, verdicts)]
    assert read == [("truncate", 1, False), ("truncate", 1, True), ("max", 2, False)]


def test_a_cache_keeps_apart_what_was_read_differently() -> None:
    bench = Bench(engine := Poisoned())
    for rule in ("truncate", "max", "mean", "max"):
        (verdict,) = bench.run(message("a long text", long_text=rule))
    assert len(engine.asked) == 3 * len(LABELS)
    assert (tagged(verdict)["cache"], tagged(verdict)["windows"], tagged(verdict)["truncated"]) == ("local", None, None)


@pytest.mark.parametrize("place", range(7))
def test_halving_finds_the_one_text_that_fails_the_pass(place: int) -> None:
    texts = [POISON if i == place else f"text {i}" for i in range(7)]
    verdicts = Bench().run(*map(message, texts))
    assert [type(v) for v in verdicts] == [Retry if i == place else Tagged for i in range(7)]


def test_halving_asks_for_nothing_twice_that_was_answered() -> None:
    bench = Bench(engine := Poisoned())
    bench.run(*map(message, ["a", "b", "c", POISON]))
    answered = [pair for pairs in engine.passes if not any(p.text == POISON for p in pairs) for pair in pairs]
    assert len(answered) == len(set(answered)) == 6


@pytest.mark.parametrize("place", range(7))
def test_a_text_that_ends_the_engine_is_found_by_one_more_death(place: int) -> None:
    bench = Bench(engine := Poisoned(EngineDied))
    verdicts = bench.run(*[message(POISON if i == place else f"text {i}") for i in range(7)])
    assert [type(v) for v in verdicts] == [Retry if i == place else Tagged for i in range(7)]
    assert sum(any(pair.text == POISON for pair in pairs) for pairs in engine.passes) == 2


def test_a_text_that_ends_the_engine_is_parked_after_three_attempts() -> None:
    bench = Bench(Poisoned(EngineDied), max_attempts=9)
    verdicts = [bench.run(message(POISON, attempts=n))[0] for n in range(3)]
    assert [type(v) for v in verdicts] == [Retry, Retry, Dead]


def test_what_came_back_may_run_three_times_without_an_end() -> None:
    bench = Bench()
    reasons = [bench.pipeline.count(bench.pipeline.prepare([message("a text")])) for _ in range(4)]
    assert [type(reason) for reason in reasons] == [type(None)] * 3 + [WorkerCrashed]


def test_what_a_worker_outlived_may_run_as_often_again() -> None:
    bench = Bench()
    work = bench.pipeline.prepare([message("a text")])
    for _ in range(3):
        bench.pipeline.count(work)
    bench.pipeline.outlived(work)
    assert bench.pipeline.count(work) is None


def test_what_the_caches_answer_is_not_counted() -> None:
    bench = Bench()
    bench.run(message("a text"))
    assert [bench.pipeline.count(bench.pipeline.prepare([message("a text")])) for _ in range(9)] == [None] * 9


def test_what_must_not_run_is_parked_with_its_reason() -> None:
    bench = Bench()
    verdicts = bench.pipeline.bury([message("a text")], WorkerCrashed("3 workers died"))
    assert [type(verdict) for verdict in verdicts] == [Dead]
    assert [letter.reason for letter in bench.parked] == ["WorkerCrashed: 3 workers died"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_leaves(value: float) -> None:
    bench = Bench(Insane(value))
    sick, well = bench.run(message(POISON), message("well"))
    assert isinstance(sick, Retry)
    assert "NaN or Inf" in str(sick.cause)
    assert all(map(math.isfinite, tagged(well)["scores"]))
    assert not bench.store.by_id(POISON)
    assert len(bench.cache) == 2  # only the healthy answer is remembered


def test_a_failure_is_retried_until_the_last_attempt_and_then_parked() -> None:
    bench = Bench(max_attempts=3)
    verdicts = [bench.run(message(POISON, attempts=n))[0] for n in range(3)]
    assert [type(v) for v in verdicts] == [Retry, Retry, Dead]
    (letter,) = bench.parked
    assert (letter.id, letter.reason, letter.attempts) == (POISON, "EngineError: the device failed", 3)
    assert json.loads(letter.payload) == {"text": POISON, "labels": LABELS}


def test_a_wrong_message_is_parked_at_once_as_it_came() -> None:
    bench = Bench()
    wrong, right = bench.run(message("wrong", labels=[], colour="red"), message("right"))
    assert isinstance(wrong, Dead)
    assert tagged(right)
    (letter,) = bench.parked
    assert letter.reason == "InvalidMessage: colour: unknown field"
    assert json.loads(letter.payload) == {"text": "wrong", "labels": [], "colour": "red"}


def test_arguments_that_are_no_object_are_parked_whole() -> None:
    bench = Bench()
    bench.run(Delivery(id="1", task=TAG_TICKET, queue="q", args=[1, 2], kwargs={}, attempts=0, queued_ms=0.0))
    assert json.loads(bench.parked[0].payload) == {"args": [1, 2], "kwargs": {}}


def test_wrong_items_of_many_are_parked_by_themselves() -> None:
    bench = Bench()
    result = tagged(*bench.run(many("one", "", "three")))
    assert (result["done"], result["failed"]) == (2, 1)
    assert [("error" in answer) for answer in result["answers"]] == [False, True, False]
    (letter,) = bench.parked
    assert letter.id == "m/1"
    assert json.loads(letter.payload)["items"] == [{"text": ""}]


def test_many_is_retried_as_a_whole_while_the_device_fails_one_of_its_items() -> None:
    bench = Bench()
    assert isinstance(bench.run(many("one", POISON))[0], Retry)
    assert not bench.parked
    assert not bench.store.by_ref("m/0")


def test_many_is_done_without_the_items_that_failed_to_the_end() -> None:
    bench = Bench(max_attempts=3)
    result = tagged(*bench.run(many("one", POISON, attempts=2)))
    assert (result["done"], result["failed"]) == (1, 1)
    assert [letter.id for letter in bench.parked] == ["m/1"]
    assert bench.store.by_ref("m/0")


def test_the_second_time_the_engine_is_not_asked() -> None:
    bench = Bench(engine := Poisoned())
    first = tagged(*bench.run(message("again", id_="1")))
    second = tagged(*bench.run(message("again", id_="2")))
    assert (first["cache"], second["cache"]) == ("none", "local")
    assert first["scores"] == second["scores"]
    assert len(engine.passes) == 1


def test_labels_in_another_order_hit_the_cache_and_keep_their_scores() -> None:
    bench = Bench()
    first = tagged(*bench.run(message("text", id_="1", labels=["a", "b", "c"])))
    second = tagged(*bench.run(message("text", id_="2", labels=["c", "a", "b"])))
    assert second["cache"] == "local"
    assert dict(zip(second["labels"], second["scores"], strict=True)) == pytest.approx(
        dict(zip(first["labels"], first["scores"], strict=True))
    )


@pytest.mark.parametrize("change", [{"labels": ["refund"]}, {"template": "About {}."}, {"text": "other"}])
def test_another_question_misses_the_cache(change: dict[str, Any]) -> None:
    bench = Bench()
    bench.run(message("text", id_="1"))
    assert tagged(*bench.run(raw({"text": "text", "labels": LABELS, **change})))["cache"] == "none"


def test_a_label_more_costs_one_pair_more_and_changes_no_score() -> None:
    bench, fresh = Bench(engine := Poisoned()), Bench()
    labels = [f"label {i}" for i in range(10)]
    bench.run(message("text", id_="1", labels=labels[:9]))
    engine.passes.clear()
    (verdict,) = bench.run(message("text", id_="2", labels=labels))
    assert engine.asked == [Pair("text", "label 9")]
    (alone,) = fresh.run(message("text", id_="2", labels=labels))
    assert tagged(verdict)["scores"] == tagged(alone)["scores"]


def relabelled(labels: Sequence[str], **fields: Any) -> Delivery:
    asked = {"text": "text", "ref": "T-1", "relabel": True, **fields}
    return raw({"labels": labels, **asked}, id_="2")


@pytest.mark.parametrize(
    ("labels", "fields", "computed", "cache"),
    [
        (["a", "b", "new"], {}, ["new"], "pairs"),
        (["a", "renamed"], {}, ["renamed"], "pairs"),
        (["b"], {}, [], "ledger"),
        (["b", "a"], {"multi_label": True}, [], "ledger"),
        (["a", "b"], {"relabel": False}, ["a", "b"], "none"),
        (["a", "b"], {"text": "edited"}, ["a", "b"], "none"),
        (["a", "b"], {"ref": "T-2"}, ["a", "b"], "none"),
        (["a"], {"template": "About {}."}, ["About a."], "none"),
    ],
    ids=[
        "gained",
        "renamed",
        "lost",
        "scored by themselves",
        "not asked",
        "edited",
        "other document",
        "other template",
    ],
)
def test_when_labels_change_only_what_the_ledger_has_no_logits_of_is_computed(
    labels: list[str], fields: dict[str, Any], computed: list[str], cache: str
) -> None:
    store = MemoryTagStore()
    Bench(store=store).run(message("text", id_="1", ref="T-1", labels=["a", "b"]))
    later, fresh = Bench(engine := Poisoned(), store=store), Bench()  # with nothing in its caches
    answer = tagged(*later.run(relabelled(labels, **fields)))
    assert [pair.hypothesis for pair in engine.asked] == computed
    assert (answer["computed"], answer["cache"]) == (len(computed), cache)
    alone = tagged(*fresh.run(relabelled(labels, **{**fields, "relabel": False})))
    assert answer["scores"] == alone["scores"]


def test_what_the_ledger_knew_is_told_to_the_other_workers() -> None:
    store, shared = MemoryTagStore(), MemoryPairCache()
    Bench(store=store).run(message("text", id_="1", ref="T-1", labels=["a", "b"]))
    meter = MemoryMeter()
    run(
        pipeline(Poisoned(), Recall(local=MemoryPairCache(), shared=shared, meter=meter), store=store, meter=meter),
        relabelled(["a", "b", "new"]),
    )
    assert len(shared) == 3
    assert meter.total(PAIRS, answer="ledger") == 2


def test_a_ledger_that_cannot_say_what_it_knows_costs_only_time() -> None:
    bench = Bench(engine := Poisoned(), store=Forgetful())
    answer = tagged(*bench.run(relabelled(["a", "b"])))
    assert (answer["cache"], len(engine.asked)) == ("none", 2)


@pytest.mark.parametrize(
    ("labels", "cache"), [(["a", "b"], "local"), (["a"], "local"), (["a", "c"], "pairs"), (["c"], "none")]
)
def test_the_answer_says_whether_the_model_was_asked(labels: list[str], cache: str) -> None:
    bench = Bench()
    bench.run(message("text", id_="1", labels=["a", "b"]))
    (verdict,) = bench.run(message("text", id_="2", labels=labels))
    assert tagged(verdict)["cache"] == cache


def test_the_answer_counts_only_the_tokens_of_what_was_computed() -> None:
    bench = Bench(engine := Poisoned())
    bench.run(message("text", id_="1", labels=["a", "b"]))
    engine.tokens = 0
    cached, partly = bench.run(message("text", id_="2", labels=["a"]), message("text", id_="3", labels=["a", "c"]))
    assert (tagged(cached)["tokens"], tagged(partly)["tokens"]) == (0, engine.tokens)
    assert engine.tokens > 0


def test_what_a_batch_asks_twice_is_billed_once() -> None:
    bench = Bench(engine := Poisoned())
    answers = [tagged(v) for v in bench.run(message("text", id_="1"), message("text", id_="2", labels=["login", "c"]))]
    assert [answer["cache"] for answer in answers] == ["none", "pairs"]
    assert sum(answer["tokens"] for answer in answers) == engine.tokens


def test_what_the_batch_before_has_just_computed_is_not_computed_again() -> None:
    bench = Bench(engine := Poisoned())
    first, second = (bench.pipeline.prepare([message("same", id_=i)]) for i in "12")
    assert second.needs_device
    bench.pipeline.infer(first)
    bench.pipeline.infer(second)
    assert len(engine.passes) == 1
    assert tagged(*bench.pipeline.record(second))["cache"] == "local"


LONG = 400
"""Characters, so that two of its pairs are more than a turn."""


def test_between_the_turns_of_a_batch_others_are_computed_and_nothing_twice() -> None:
    bench = Bench(engine := Poisoned())
    texts = [f"{i}" + "长" * LONG for i in range(3)]
    bulk, live = bench.pipeline.prepare([many(*texts)]), bench.pipeline.prepare([message(texts[2], id_="live")])
    turns = bench.pipeline.turns(bulk)
    next(turns)
    bench.pipeline.infer(live)
    assert [len(pairs) for pairs in engine.passes] == [2, 2], "a turn was longer than a text"
    assert list(turns) == [None]
    assert sorted(pair.text for pair in engine.asked) == sorted(2 * texts)
    (verdict,) = bench.pipeline.record(bulk)
    assert [answer["cache"] for answer in tagged(verdict)["answers"]] == ["none", "none", "local"]


def test_a_batch_that_fits_into_a_turn_is_computed_in_one() -> None:
    bench = Bench(engine := Poisoned())
    assert list(bench.pipeline.turns(bench.pipeline.prepare([many("a", "b", "c")]))) == []
    assert [len(pairs) for pairs in engine.passes] == [6]


def test_a_text_that_fails_in_a_turn_costs_the_others_nothing() -> None:
    bench = Bench()
    work = bench.pipeline.prepare([many("fine " + "长" * LONG, f"{POISON} " + "长" * LONG, "fine too", attempts=2)])
    assert len(list(bench.pipeline.turns(work))) > 0
    (verdict,) = bench.pipeline.record(work)
    assert ["error" in answer for answer in tagged(verdict)["answers"]] == [False, True, False]


def test_a_text_that_fails_still_has_the_answers_that_were_known() -> None:
    bench = Bench(Patient())
    bench.run(message(POISON, id_="1", labels=["a"]))
    known, new = bench.run(message(POISON, id_="2", labels=["a"]), message(POISON, id_="3", labels=["b"]))
    assert tagged(known)["cache"] == "local"
    assert isinstance(new, Retry)


def test_a_batch_that_nobody_asked_the_engine_about_is_tried_again() -> None:
    bench = Bench()
    (verdict,) = bench.pipeline.record(bench.pipeline.prepare([message("text")]))
    assert isinstance(verdict, Retry)


@pytest.mark.parametrize("change", [{"fingerprint": "1" * 64}, {"precision": "int8"}, {"max_length": 128}])
def test_another_model_precision_or_length_misses_the_cache(change: dict[str, Any]) -> None:
    bench = Bench(engine := Poisoned())
    bench.run(message("text", id_="1"))
    engine._info = replace(engine.info, **change)
    assert tagged(*bench.run(message("text", id_="2")))["cache"] == "none"


def test_while_the_ledger_is_away_nothing_is_final_and_the_same_work_can_be_recorded_later() -> None:
    bench = Bench(store=AwayOnce())
    work = bench.pipeline.prepare([message("patient")])
    bench.pipeline.infer(work)
    with pytest.raises(StoreUnavailable):
        bench.pipeline.record(work)
    assert not bench.store.by_id("patient")
    assert tagged(*bench.pipeline.record(work))["id"] == "patient"
    assert bench.store.by_id("patient")


def erased_bench(ref: str) -> Bench:
    bench = Bench()
    bench.store.erase(Document("api", ref, "ticket"))
    return bench


def test_a_text_of_an_erased_document_is_answered_with_an_error_and_kept_nowhere() -> None:
    bench = erased_bench("T-1")
    refused, neighbour = bench.run(message("gone", ref="T-1"), message("stays", ref="T-2"))
    assert isinstance(refused, Refused)
    assert "was erased" in str(refused.cause)
    assert tagged(neighbour)["ref"] == "T-2"
    assert bench.parked == []
    assert not bench.store.by_ref("T-1")
    assert len(bench.cache) == len(LABELS), "only what was asked about the neighbour is remembered"


def test_an_erased_item_costs_its_neighbours_nothing_and_is_not_parked() -> None:
    bench = erased_bench("m/1")
    result = tagged(*bench.run(many("first", "gone", "third")))
    assert (result["done"], result["failed"]) == (2, 1)
    assert "was erased" in result["answers"][1]["error"]
    assert bench.parked == []


def test_an_item_that_was_erased_before_it_was_published_is_skipped() -> None:
    bench = Bench()
    body = {"labels": LABELS, "items": [{"text": "first"}, {"erased": True}]}
    result = tagged(*bench.run(raw(body, id_="m", task=TAG_MANY)))
    assert "was erased" in result["answers"][1]["error"]
    assert bench.parked == []


def test_every_message_that_is_done_is_finished_even_if_all_its_items_were_wrong() -> None:
    bench = Bench()
    bench.run(message("good"), many("", ""), message(""))
    assert bench.store.done == {"good", "m"}


def test_giving_up_retries_each_and_parks_those_at_their_end() -> None:
    bench = Bench(max_attempts=2)
    verdicts = bench.pipeline.give_up([message("new"), message("old", attempts=1)], TagmillError("unexpected"))
    assert [type(v) for v in verdicts] == [Retry, Dead]
    assert [letter.id for letter in bench.parked] == ["old"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["text", "labels", "items", "label_set", "id", "schema_version", "template", "trace", "model"])
bodies = json_values | st.dictionaries(fields, json_values, max_size=5)


@given(st.lists(st.tuples(bodies, st.sampled_from([TAG_TICKET, TAG_COMMENT, TAG_MANY])), max_size=4))
def test_no_json_makes_it_raise_or_costs_a_neighbour(strange: list[tuple[object, str]]) -> None:
    bench = Bench()
    deliveries = [raw(body, id_=str(i), task=task) for i, (body, task) in enumerate(strange)]
    for delivery in deliveries:
        assert bench.pipeline.weigh(delivery.task, delivery.args, delivery.kwargs).pairs >= 1
    *_, neighbour = bench.run(*deliveries, message("neighbour"))
    assert tagged(neighbour)["id"] == "neighbour"
