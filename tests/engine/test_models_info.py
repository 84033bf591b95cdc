"""`tagmill models info` loads a model as a worker would and says what it is and what that took."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import Tagmill


def test_a_model_is_named_with_the_time_and_memory_that_loading_took(tmp_path: Path) -> None:
    done = Tagmill(tmp_path, {"TAGMILL_MODEL__MAX_LENGTH": "64"})("models", "info", "demo", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["name"], told["precision"], told["device"], told["max_length"]) == ("demo", "float32", "cpu", 64)
    assert told["load_s"] > 0
    assert told["peak_rss_mb"] > 50


def test_a_model_that_cannot_be_served_is_refused_in_words(tmp_path: Path) -> None:
    done = Tagmill(tmp_path, {"TAGMILL_MODEL__MAX_LENGTH": "600"})("models", "info", "demo")
    assert done.code != 0
    assert "model.max_length is 600, expected 8 to 512" in done.err
