"""Settings that are fine one by one and wrong together."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tagging.urls import AMQP_SCHEMES, LOOPBACK, REDIS_SCHEMES, SENTINEL

if TYPE_CHECKING:
    from tagging.settings import Settings

LOOP_WAITS_S: Final = 20.0
"""The longest that a worker's loop may wait for one thing: a broker that is asked, and then connected to twice. The
ledger and the results are waited for by other threads."""


def disagreements(s: "Settings") -> Iterator[str]:
    """What is wrong, with its remedy; each text names all settings that it is about."""
    if s.broker.prefetch and s.broker.prefetch < s.batching.max_messages:
        yield (
            f"broker.prefetch is {s.broker.prefetch} but batching.max_messages is {s.batching.max_messages}: batches "
            f"would never fill.\n    Set broker.prefetch to {3 * s.batching.max_messages} in config/app.toml, or "
            f"TAGMILL_BROKER__PREFETCH={3 * s.batching.max_messages}; 0 chooses it by itself."
        )
    yield from _broker_disagreements(s)
    if s.results.url.startswith(f"{SENTINEL}:"):
        yield "results.url: Sentinel is for broker.url; use redis://, such as a proxy's that follows the master"
    if s.cache.url and urlsplit(s.cache.url).scheme not in REDIS_SCHEMES:
        yield "cache.url: use redis:// or rediss://, or leave it empty to cache in the worker's memory only"
    if (s.metrics.address, s.metrics.port) == (s.flower.address, s.flower.port):
        yield f"metrics.port and flower.port are both {s.metrics.port}; set TAGMILL_METRICS__PORT to another one"
    if urlsplit(s.ledger.url).scheme.partition("+")[0] not in ("sqlite", "postgresql", "postgres"):
        yield "ledger.url: use sqlite:///file or postgresql://user:password@host/database"
    if s.labels.suggest_at > s.labels.apply_at:
        yield f"labels.suggest_at {s.labels.suggest_at} is above labels.apply_at {s.labels.apply_at}; set it lower"
    if s.retries.backoff_s > s.retries.backoff_max_s:
        yield f"retries.backoff_s {s.retries.backoff_s} is above retries.backoff_max_s {s.retries.backoff_max_s}"
    if s.model.device == "cpu":
        for name, value in (("max_memory_mb", s.model.max_memory_mb), ("offload", s.model.offload)):
            if value not in (0, "none"):
                yield f"model.{name} is {value}, which is for GPUs, but model.device is cpu; leave it out"
    if 0 < s.worker.loop_timeout_s < LOOP_WAITS_S:
        yield (
            f"worker.loop_timeout_s is {s.worker.loop_timeout_s:g}, but the loop may wait {LOOP_WAITS_S:g} s for "
            f"one answer of a server: it would be ended for nothing.\n    Set {2 * LOOP_WAITS_S:g} or more, or 0."
        )
    # Renewed three times in the timeout, except while a stopping worker drains.
    least_s = 2 * s.batching.drain_s
    if s.uses_redis_broker and s.broker.visibility_timeout_s < least_s:
        yield (
            f"broker.visibility_timeout_s is {s.broker.visibility_timeout_s} but a stopping worker holds its messages "
            f"for {s.batching.drain_s:g} s more (batching.drain_s): they would come back while it finishes them.\n"
            f"    Set broker.visibility_timeout_s to {least_s:.0f} or more."
        )
    yield from _tls_disagreements(s)
    yield from _intake_disagreements(s)
    yield from _http_disagreements(s)
    yield from _write_back_disagreements(s)


def _broker_disagreements(s: "Settings") -> Iterator[str]:
    urls = s.broker.url.split(";")
    schemes = {urlsplit(url).scheme for url in urls}
    if unknown := schemes - {*REDIS_SCHEMES, *AMQP_SCHEMES, SENTINEL}:
        yield f"broker.url: {min(unknown) or 'no scheme'} is no broker that we know; use redis:// or amqp://"
    if len(urls) > 1 and schemes & {*REDIS_SCHEMES}:
        yield (
            "broker.url: two Redis servers hold two different queues, so only one can be named.\n"
            "    Let Sentinel choose: sentinel://a:26379;sentinel://b:26379, with broker.sentinel_master."
        )
    if len(schemes) > 1:
        yield f"broker.url: {' and '.join(sorted(schemes))} together; all hosts must be of one kind"
    if (SENTINEL in schemes) != bool(s.broker.sentinel_master):
        yield "broker.sentinel_master: name the master that Sentinel watches, with a sentinel:// URL and with no other"


def _tls_disagreements(s: "Settings") -> Iterator[str]:
    urls, file = [urlsplit(url) for url in s.broker.url.split(";")], s.broker.tls_ca_file
    if urls[0].scheme != "amqps":
        for name in ("tls_ca_file", "tls_server_name"):
            if getattr(s.broker, name):
                yield f"broker.{name} is for amqps://, but broker.url is {urls[0].scheme}://: nothing would be guarded"
        return
    if any("ssl_" in url.query for url in urls):
        yield "broker.url: amqps:// takes no ssl_ options; set broker.tls_ca_file, broker.tls_server_name"
    if len({url.hostname for url in urls}) > 1 and not s.broker.tls_server_name:
        yield "broker.tls_server_name: set it to a name that the certificates of all hosts in broker.url bear"
    if file and not Path(file).is_file():
        yield f"broker.tls_ca_file: there is no file {file}; expected certificates of authorities, as PEM"


def _http_disagreements(s: "Settings") -> Iterator[str]:
    if s.http.access == "none" and s.http.address not in LOOPBACK:
        yield (
            f"http.access is none but http.address is {s.http.address}: anybody could send and read.\n"
            "    Set http.access to keys, and make one with `tagmill keys create`; or http.address to 127.0.0.1."
        )


def _write_back_disagreements(s: "Settings") -> Iterator[str]:
    if s.writeback.backoff_s > s.writeback.backoff_max_s:
        yield (
            f"writeback.backoff_s {s.writeback.backoff_s:g} is above writeback.backoff_max_s "
            f"{s.writeback.backoff_max_s:g}; set it lower"
        )


def _intake_disagreements(s: "Settings") -> Iterator[str]:
    comes_back_s = s.longest_hold_s + (s.broker.visibility_timeout_s if s.uses_redis_broker else 0)
    parts = "batching.drain_s, twice model.timeout_s" + (", broker.visibility_timeout_s" if s.uses_redis_broker else "")
    if s.intake.sweep_after_s < comes_back_s:
        yield (
            f"intake.sweep_after_s is {s.intake.sweep_after_s:g} but the broker itself may bring a message back after "
            f"{comes_back_s:.0f} s ({parts}): it would be published twice.\n"
            f"    Set intake.sweep_after_s to {comes_back_s:.0f} or more, or TAGMILL_INTAKE__SWEEP_AFTER_S="
            f"{comes_back_s:.0f}."
        )
    if s.backfill.live_waiting_low > s.backfill.live_waiting_high:
        yield (
            f"backfill.live_waiting_low {s.backfill.live_waiting_low} is above backfill.live_waiting_high "
            f"{s.backfill.live_waiting_high}; set it lower"
        )
    if s.backfill.chunk_items > s.texts.max_items:
        yield (
            f"backfill.chunk_items is {s.backfill.chunk_items} but workers take texts.max_items {s.texts.max_items} a "
            "message: set it to that or less"
        )
    if s.intake.backoff_s > s.intake.backoff_max_s:
        yield f"intake.backoff_s {s.intake.backoff_s:g} is above intake.backoff_max_s {s.intake.backoff_max_s:g}"
