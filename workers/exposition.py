"""The catalogue's metrics as Prometheus reads them, over HTTP from the worker's own process."""

from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from tagging.errors import SettingsError
from workers.metrics import CATALOGUE, Metric, series_of

Child = Counter | Histogram


class PrometheusMeter:
    """A ``Meter`` whose figures are scraped. Every series is there from the start, so that a rate has a first value."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[str, ...], Child] = {}
        # Else every series has a second one that says when the process started.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it so
        ProcessCollector(registry=self.registry)
        for metric in CATALOGUE:
            self._register(metric)

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Count."""
        child = self._child(metric, labels)
        assert isinstance(child, Counter), f"{metric.name} is a {metric.kind}"
        child.inc(amount)

    def observe(self, metric: Metric, *values: float, **labels: str) -> None:
        """Put each into the histogram."""
        child = self._child(metric, labels)
        assert isinstance(child, Histogram), f"{metric.name} is a {metric.kind}"
        for value in values:
            child.observe(value)

    def serve(self, *, address: str, port: int) -> None:
        """Answer scrapes from now on, on a thread of its own.

        Raises:
            SettingsError: The port is taken, or the address is not of this machine.
        """
        try:
            start_http_server(port, addr=address, registry=self.registry)
        except OSError as e:
            raise SettingsError(
                [
                    f"metrics.port: cannot listen on {address}:{port} ({e.strerror or e}).\n"
                    "    Every worker process needs a port of its own: set TAGMILL_METRICS__PORT to one that is free, "
                    "or to 0 for none."
                ]
            ) from e

    def _register(self, metric: Metric) -> None:
        parent = _instrument(metric, self.registry)
        for values in product(*metric.labels.values()):
            self._children[metric.name, *values] = parent.labels(*values) if values else parent

    def _child(self, metric: Metric, labels: dict[str, str]) -> Child:
        return self._children[metric.name, *series_of(metric, labels)]


def _instrument(metric: Metric, registry: CollectorRegistry) -> Child:
    names: Final = tuple(metric.labels)
    match metric.kind:
        case "counter":
            return Counter(metric.name, metric.help, names, registry=registry)
        case "histogram":
            return Histogram(metric.name, metric.help, names, buckets=metric.buckets, registry=registry)
