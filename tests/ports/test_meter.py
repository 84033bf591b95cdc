"""Every Meter adds up what it is told under the catalogue's labels, and under no others."""

import socket
from collections.abc import Callable
from contextlib import closing
from urllib.request import urlopen

import pytest

from tagging.errors import SettingsError
from tests.servers import HOST, free_port
from workers.exposition import PrometheusMeter
from workers.metrics import CATALOGUE, DEAD_LETTERS, INFERENCE_SECONDS, MESSAGES, PAIRS
from workers.ports import Meter
from workers.stores.memory import MemoryMeter

Read = Callable[..., float | None]


def in_memory() -> tuple[Meter, Read]:
    meter = MemoryMeter()
    return meter, meter.total


def in_prometheus() -> tuple[Meter, Read]:
    meter = PrometheusMeter()

    def read(metric, **labels):
        name = metric.name if metric.kind == "counter" else f"{metric.name}_sum"
        return meter.registry.get_sample_value(name, labels)

    return meter, read


@pytest.fixture(params=[in_memory, in_prometheus])
def metered(request: pytest.FixtureRequest) -> tuple[Meter, Read]:
    return request.param()


def test_counts(metered):
    meter, read = metered
    meter.add(DEAD_LETTERS)
    meter.add(DEAD_LETTERS, 3)
    assert read(DEAD_LETTERS) == 4


def test_tells_series_apart(metered):
    meter, read = metered
    meter.add(PAIRS, 3, answer="computed")
    meter.add(PAIRS, 4, answer="local")
    meter.add(MESSAGES, outcome="dead", lane="bulk")
    assert (read(PAIRS, answer="computed"), read(PAIRS, answer="local")) == (3, 4)
    assert read(MESSAGES, lane="bulk", outcome="dead") == 1
    assert read(MESSAGES, lane="live", outcome="dead") == 0


def test_sums_up_what_it_observes(metered):
    meter, read = metered
    meter.observe(INFERENCE_SECONDS)
    meter.observe(INFERENCE_SECONDS, 0.125)
    meter.observe(INFERENCE_SECONDS, 0.25, 0.375)
    assert read(INFERENCE_SECONDS) == 0.75


@pytest.mark.parametrize("labels", [{}, {"answer": "guessed"}, {"ticket": "T-1"}, {"answer": "local", "ref": "T-1"}])
def test_a_series_that_is_not_in_the_catalogue_is_refused(metered, labels):
    with pytest.raises(ValueError, match="tagmill_pairs_total: no series"):
        metered[0].add(PAIRS, **labels)


def scraped(port: int) -> str:
    with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as reply:
        return reply.read().decode()


def test_every_series_can_be_scraped_before_anything_happened():
    meter, port = PrometheusMeter(), free_port()
    meter.serve(address=HOST, port=port)
    text = scraped(port)
    for metric in CATALOGUE:
        assert f"# HELP {metric.name} " in text
    for answer in PAIRS.labels["answer"]:
        assert f'tagmill_pairs_total{{answer="{answer}"}} 0.0' in text
    assert "_created" not in text
    assert "process_resident_memory_bytes" in text


def test_a_port_that_is_taken_is_refused_with_what_to_do():
    with closing(socket.create_server((HOST, 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"cannot listen on 127.0.0.1:{port}") as refused:
            PrometheusMeter().serve(address=HOST, port=port)
    assert "TAGMILL_METRICS__PORT" in str(refused.value)
