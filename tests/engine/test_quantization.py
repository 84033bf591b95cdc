"""The INT8 model chooses what the float32 one does, and is made once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lab import calibration
from lab.phrasings import TEMPLATE, load_phrasings
from lab.texts import FAMILIES, load_texts, of_split
from tagging.errors import ModelRefused
from workers.engines.build import build_engine
from workers.engines.checkpoint import read_checkpoint
from workers.engines.conversion import convert
from workers.engines.openvino_network import OpenVinoNetwork
from workers.engines.quantization import CALIBRATION, read_calibration
from workers.ports import Engine, Pair

UNCHANGED = 0.99


@pytest.fixture
def converted(checkpoint_dir: Callable[[str], Path], cache_dir: Path) -> Path:
    return convert(read_checkpoint(checkpoint_dir("plain")), cache_dir)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    return tmp_path / "exported"


def open_int8(converted: Path, exports: Path) -> OpenVinoNetwork:
    return OpenVinoNetwork(converted, precision="int8", exports=exports, threads=1)


def test_at_most_one_first_choice_in_a_hundred_changes(cache_dir: Path) -> None:
    engines = [
        build_engine("demo", precision=precision, in_process=True, check=False, cache_dir=cache_dir)
        for precision in ("float32", "int8")
    ]
    texts = [text.text for text in of_split(load_texts(), "dev")[::2]]
    agreed = np.concatenate([_agreed(engines, texts, list(labels)) for labels in _label_sets()])
    assert len(agreed) > 1000
    assert agreed.mean() >= UNCHANGED


def _label_sets() -> list[list[str]]:
    phrasings = load_phrasings()
    return [
        [template.format(wordings.zh[0]) for wordings in phrasings[family].values()]
        for family in FAMILIES
        for template in ("{}", TEMPLATE)
    ]


def _agreed(engines: list[Engine], texts: list[str], hypotheses: list[str]) -> np.ndarray:
    """Whether each text's first choice is the same for both."""
    pairs = [Pair(text, hypothesis) for text in texts for hypothesis in hypotheses]
    chosen = [np.array(engine.entail(pairs).logits)[:, 0].reshape(len(texts), -1).argmax(axis=1) for engine in engines]
    return np.asarray(chosen[0] == chosen[1])


def test_it_is_made_once_and_read_afterwards(converted: Path, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_int8(converted, exports)
    monkeypatch.setitem(sys.modules, "nncf", None)
    open_int8(converted, exports)
    assert len(list(exports.iterdir())) == 1


def test_a_damaged_one_is_made_anew(converted: Path, exports: Path) -> None:
    open_int8(converted, exports)
    weights = next(exports.glob("*/model.bin"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    open_int8(converted, exports)
    assert weights.read_bytes() == whole


def test_without_nncf_it_says_what_to_install(converted: Path, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModelRefused, match=r"pip install 'tagmill\[int8\]'"):
        open_int8(converted, exports)
    assert not list(exports.iterdir())


def test_a_folder_without_room_is_refused_by_name(converted: Path, tmp_path: Path) -> None:
    in_the_way = tmp_path / "exported"
    in_the_way.write_text("a file", encoding="utf-8")
    with pytest.raises(ModelRefused, match="cannot keep the INT8 model there"):
        open_int8(converted, in_the_way)


def test_the_calibration_is_the_draw_that_the_lab_makes(tmp_path: Path) -> None:
    calibration.write(tmp_path / "drawn.jsonl")
    assert (tmp_path / "drawn.jsonl").read_bytes() == CALIBRATION.read_bytes()


def test_nothing_of_the_dev_split_is_calibrated_on() -> None:
    dev = {text.text for text in of_split(load_texts(), "dev")}
    assert not dev & {row.text for row in read_calibration(CALIBRATION)}
