"""What an engine's process logs has the form of what its worker logs, a line at a time."""

import io
import logging
import re

import pytest
import structlog

from tagging import logs

log = logging.getLogger("some_package.engine")


def test_an_event_of_the_package_is_said_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_plain("some_package", "info")
    log.info("model.kept folder=%s", "a1b2")
    logged = r"timestamp=\d{4}-\d\d-\d\dT[\d:.]+Z level=info event=model\.kept folder=a1b2\n"
    assert re.fullmatch(logged, capsys.readouterr().err)


def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_plain("some_package", "warning")
    log.info("model.kept")
    assert not capsys.readouterr().err


class Shared(io.StringIO):
    """A log into which several processes write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str) -> int:
        """Note what is written at once."""
        self.written.append(text)
        return len(text)


def test_a_worker_writes_an_event_with_its_line_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", shared := Shared())
    before = structlog.get_config()
    try:
        logs.configure("info", node="w1")
        structlog.get_logger().info("batch.tagged", n=3)
    finally:
        structlog.configure(**before)
    (line,) = shared.written
    assert line.endswith(" n=3 node=w1\n")
