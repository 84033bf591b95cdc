"""What an engine's process logs has the form of what its worker logs."""

import logging
import re

import pytest

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
