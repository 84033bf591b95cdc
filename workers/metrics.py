"""What a worker counts and times: the catalogue, from which ``docs/metrics.md`` is made.

Each metric says what it is and what an operator does with it; one that nobody would act on has no place here. Labels
take the values listed and no others, so that no text, ticket, host or process can become a time series. How figures
leave the process is ``workers.exposition``'s business.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import fill
from typing import Final, Literal

_WIDTH: Final = 120
PAGE_COMMAND: Final = "tagmill metrics > docs/metrics.md"
_NO_LABELS: Final[Mapping[str, tuple[str, ...]]] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """One name, all its series, and what they are for."""

    name: str
    """Ends in its unit; a counter's in ``_total`` after it."""
    kind: Literal["counter", "histogram"]
    unit: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_LABELS)
    """Every value that each label may take."""
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram."""
    about: str
    use: str

    @property
    def help(self) -> str:
        """One line for whoever scrapes."""
        return self.about.partition(". ")[0].rstrip(".")


_FAST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

MESSAGES: Final = Metric(
    name="tagmill_messages_total",
    kind="counter",
    unit="messages",
    labels={"lane": ("live", "bulk"), "outcome": ("tagged", "retried", "dead", "refused")},
    about="Messages that left a batch, by what became of them. A message that is retried counts again each time.",
    use="`tagged` is the throughput to alert on when it stops while the queue is not empty. `retried` rising is the "
    "device failing; `dead` rising is a sender's fault or a lasting one of the device: `tagmill dead list`. "
    "`refused` are late messages about erased documents.",
)
TEXTS: Final = Metric(
    name="tagmill_texts_total",
    kind="counter",
    unit="texts",
    about="Valid texts in batches; a `tagmill.tag_many` brings many.",
    use="Capacity planning: texts a second that a worker does, at today's mix of lengths and label sets.",
)
BATCH_MESSAGES: Final = Metric(
    name="tagmill_batch_messages",
    kind="histogram",
    unit="messages",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    about="Messages in a batch; its count is the number of batches.",
    use="Near `batching.max_messages` all the time, the device is the limit: add a worker. Small while the queue is "
    "long: `broker.prefetch` is too low, or `batching.max_tokens` closes the batches.",
)
PAIRS: Final = Metric(
    name="tagmill_pairs_total",
    kind="counter",
    unit="pairs",
    labels={
        "answer": ("computed", "local", "shared", "ledger", "same_batch", "batch_before", "other_worker", "failed"),
    },
    about="Pairs of text and label that were asked for, by where their answer came from; all of them together are "
    "what was asked. `computed`: the model. `local` and `shared`: pair cache, in memory and in Redis. `ledger`: "
    "logits kept with earlier answers, for messages that say `relabel`. `same_batch`: "
    "asked twice in one batch. `batch_before` and `other_worker`: single flight, here and across workers. `failed`: "
    "no answer, the message is tried again or parked.",
    use="1 - computed / all is the share of the bill that is saved. Falls after a change of model or pepper and comes "
    "back within `cache.ttl_s`; if it does not, look at `tagmill_cache_failures_total` and at `cache.local_entries`.",
)
TOKENS: Final = Metric(
    name="tagmill_tokens_total",
    kind="counter",
    unit="tokens",
    about="Tokens that the model computed, without padding.",
    use="Tokens a second is the device's throughput, which batch sizes and text lengths do not distort.",
)
PADDED_TOKENS: Final = Metric(
    name="tagmill_padded_tokens_total",
    kind="counter",
    unit="tokens",
    about="Tokens that the device computed in all, padding included.",
    use="1 - tokens / padded tokens is waste. Above a tenth, let more messages into a batch, or lower "
    "`model.max_tokens_per_pass` on a CPU.",
)
QUEUE_SECONDS: Final = Metric(
    name="tagmill_queue_seconds",
    kind="histogram",
    unit="seconds",
    labels={"lane": ("live", "bulk")},
    buckets=_SLOW_SECONDS,
    about="From sending a message (where the sender says when, else from its arrival) to the start of its batch.",
    use="The latency that people feel: alert on the live lane's 95th percentile. Rising with full batches: add a "
    "worker. Bulk may wait.",
)
INFERENCE_SECONDS: Final = Metric(
    name="tagmill_inference_seconds",
    kind="histogram",
    unit="seconds",
    buckets=_FAST_SECONDS,
    about="One call of the engine for what a batch left to it, the way to the engine's process included.",
    use="Its sum over time is how busy the device is: near 1, it is the limit. A jump without longer texts: the device "
    "is throttled or shared with somebody. A third of `cache.single_flight_wait_ms` should be more than its median.",
)
DEVICE_SECONDS: Final = Metric(
    name="tagmill_device_seconds_total",
    kind="counter",
    unit="seconds",
    about="Time that the device computed, as the engine measured it.",
    use="Much less than the sum of `tagmill_inference_seconds`: tokenising or the way to the engine's process is the "
    "limit, not the device.",
)
ENGINE_SHRUNK: Final = Metric(
    name="tagmill_engine_halved_passes_total",
    kind="counter",
    unit="passes",
    labels={},
    about="Passes that did not fit on the device and were halved; nothing of them is lost.",
    use="Some after a start, or while something else uses the card, are how the token budget finds its size. Many: "
    "lower `model.max_tokens_per_pass`.",
)
ENGINE_FAILURES: Final = Metric(
    name="tagmill_engine_failures_total",
    kind="counter",
    unit="failures",
    labels={"cause": ("died", "out_of_memory", "other")},
    about="Calls of the engine that failed. `died`: its process ended or hung and was started again. `out_of_memory`: "
    "not even a small pass fitted; passes that fitted once halved do not count.",
    use="Any `died` wants a look at the device and its driver: after 16 in a row the worker ends. `out_of_memory`: "
    "something else uses the card, or lower `model.max_tokens_per_pass`.",
)
SINGLE_FLIGHT_SECONDS: Final = Metric(
    name="tagmill_single_flight_wait_seconds",
    kind="histogram",
    unit="seconds",
    labels={"outcome": ("came", "in_vain")},
    buckets=_FAST_SECONDS,
    about="How long a batch waited for pairs that other workers had promised.",
    use="`in_vain` more often than `came`: batches take longer than `cache.single_flight_wait_ms`; raise it or set it "
    "to 0.",
)
CACHE_FAILURES: Final = Metric(
    name="tagmill_cache_failures_total",
    kind="counter",
    unit="calls",
    about="Calls that the shared cache failed.",
    use="Not urgent: answers do not depend on it, but every worker computes what another may have. See `cache.lost` in "
    "the log; a few now and then are timeouts, `cache.timeout_ms`.",
)
CACHE_SKIPS: Final = Metric(
    name="tagmill_cache_skips_total",
    kind="counter",
    unit="calls",
    about="Calls that were not made because the shared cache had just failed.",
    use="Rising steadily: the cache is down. Its time is saved, its pairs are not.",
)
DEAD_LETTERS: Final = Metric(
    name="tagmill_dead_letters_total",
    kind="counter",
    unit="letters",
    about="Letters that this worker parked: dead messages, wrong items of a `tagmill.tag_many`, and what could not be "
    "read as a message at all.",
    use="Alert when it rises faster than somebody can read: `tagmill dead list` shows the reasons, the runbook what "
    "each means.",
)
WRITE_BACKS: Final = Metric(
    name="tagmill_write_backs_total",
    kind="counter",
    unit="write_backs",
    labels={
        "outcome": (
            "written",
            "unchanged",
            "no_policy",
            "superseded",
            "erased",
            "known",
            "postponed",
            "retried",
            "dead",
        ),
    },
    about="Orders to write tags back, by what became of them; counted by `tagmill writeback run` alone. `unchanged`: "
    "the ticket had all of it. `known`: it was delivered again. `postponed`: its account was busy or down, and was not "
    "called. `retried`: it was called in vain.",
    use="`postponed` rising: more answers than an account's `max_per_minute` lets through, or `writeback.account_lost` "
    "in the log. `dead` rising: `tagmill dead list --task tagmill.write_back`; most often a token that has run out.",
)

CATALOGUE: Final = (
    MESSAGES,
    TEXTS,
    BATCH_MESSAGES,
    PAIRS,
    TOKENS,
    PADDED_TOKENS,
    QUEUE_SECONDS,
    INFERENCE_SECONDS,
    DEVICE_SECONDS,
    ENGINE_SHRUNK,
    ENGINE_FAILURES,
    SINGLE_FLIGHT_SECONDS,
    CACHE_FAILURES,
    CACHE_SKIPS,
    DEAD_LETTERS,
    WRITE_BACKS,
)


def series_of(metric: Metric, labels: Mapping[str, str]) -> tuple[str, ...]:
    """The labels' values in the catalogue's order.

    Raises:
        ValueError: The catalogue has no such series; the text says which it has.
    """
    if labels.keys() != metric.labels.keys() or any(labels[name] not in metric.labels[name] for name in labels):
        raise ValueError(f"{metric.name}: no series {dict(labels)}; the catalogue has {dict(metric.labels)}")
    return tuple([labels[name] for name in metric.labels])


def page() -> str:
    """``docs/metrics.md``."""
    sections = ("\n".join(_section(metric)) for metric in CATALOGUE)
    return "\n\n".join([_INTRODUCTION, *sections]) + "\n"


_INTRODUCTION: Final = f"""\
# Metrics

Written by `{PAGE_COMMAND}` from `workers/metrics.py`, not by hand.

A worker answers Prometheus on `http://<metrics.address>:<metrics.port>/metrics` once `metrics.port` is set
(`TAGMILL_METRICS__PORT=9464`; 0, the default, is off). It listens on 127.0.0.1 unless `metrics.address` says otherwise;
there is no password, so let only the scraper reach it. A port that is taken stops the worker at its start: every worker
process needs a port of its own, and counts what it did itself since its start, so sum over workers. Beside what follows
there are the client library's `process_*` figures of the worker's process, without the engine's."""


def _section(metric: Metric) -> Iterator[str]:
    by = "".join(f", by `{name}` ({', '.join(values)})" for name, values in metric.labels.items())
    yield f"## {metric.name}"
    yield ""
    yield f"{metric.kind.capitalize()}, in {metric.unit}{by}."
    if metric.buckets:
        yield f"Buckets up to {', '.join(f'{bound:g}' for bound in metric.buckets)}."
    yield ""
    yield fill(metric.about, _WIDTH)
    yield ""
    yield fill(f"**Use.** {metric.use}", _WIDTH)
