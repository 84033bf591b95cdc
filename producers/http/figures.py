"""What the HTTP process tells Prometheus."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily

from producers.http.load import Tide
from producers.http.waiting import Waiters

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Hooks:
    """Webhooks, read when they are scraped."""

    def __init__(self, outcomes: Mapping[tuple[str, str], int]) -> None:
        self._outcomes = outcomes

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See prometheus_client."""
        about = "Webhooks by system and what became of them; `refused-…` were not proven to come from the system."
        family = CounterMetricFamily("tagmill_webhooks", about, labels=["system", "outcome"])
        for labels, n in list(self._outcomes.items()):
            family.add_metric(labels, n)
        yield family


class Figures:
    """Counts requests; the rest is read when it is scraped. Labels are patterns of routes, never paths."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, *, tide: Tide, waiters: Waiters, hooks: Mapping[tuple[str, str], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Hooks(hooks))
        self._requests = Counter(
            "tagmill_http_requests_total",
            "Requests answered, by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tagmill_http_request_seconds",
            "From the first byte of a request to the end of its answer; POST /v1/tags includes the wait for its tags.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._gauge("tagmill_http_waiting_tasks", "Tasks whose answers are waited for.", lambda: waiters.waiting)
        self._gauge("tagmill_intake_unfinished_messages", "Accepted and not finished.", lambda: tide.load.unfinished)
        self._gauge("tagmill_intake_oldest_age_seconds", "Age of the oldest unfinished message.", lambda: tide.age_s)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        """The text that is scraped."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        Gauge(name, about, registry=self._registry).set_function(read)
