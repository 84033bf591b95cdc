"""A model is found by its name in the catalogue or by its directory, and a wrong catalogue says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tagging.errors import ModelRefused
from workers.engines.catalogue import DEMO_MODEL, UNLISTED, load_catalogue, resolve


def catalogue_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


TESTS = 'self_test.entailed = ["a", "b"]\nself_test.contradicted = ["a", "c"]\n'


def test_the_shipped_catalogue_names_the_demo_and_both_structberts() -> None:
    catalogue = load_catalogue()
    assert set(catalogue) == {"demo", "structbert-base", "structbert-large"}
    base = catalogue["structbert-base"]
    assert base.source == "iic/nlp_structbert_zero-shot-classification_chinese-base"
    assert (base.entailment, base.contradiction, base.template, base.max_length) == (0, 2, "{}", 512)
    assert base.self_test.entailed == ("世界那么大，我想去看看", "旅游")


def test_a_directory_is_taken_as_it_is(tmp_path: Path, checkpoint_dir: Callable[[str], Path]) -> None:
    found = resolve(str(checkpoint_dir("plain")), catalogue={}, models_dir=tmp_path)
    assert (found.name, found.directory, found.entry) == ("plain", checkpoint_dir("plain").resolve(), UNLISTED)


def test_a_fetched_model_lies_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "structbert-base").mkdir()
    found = resolve("structbert-base", catalogue=load_catalogue(), models_dir=tmp_path)
    assert found.directory == tmp_path / "structbert-base"


def test_a_model_that_was_not_fetched_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="tagmill models fetch structbert-base"):
        resolve("structbert-base", catalogue=load_catalogue(), models_dir=tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="knows: demo, structbert-base, structbert-large"):
        resolve("bert", catalogue=load_catalogue(), models_dir=tmp_path)


def test_the_demo_model_lies_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEMO_MODEL.parent.name == "engines"
    monkeypatch.setattr("workers.engines.catalogue.DEMO_MODEL", tmp_path)
    assert resolve("demo", catalogue=load_catalogue(), models_dir=tmp_path / "none").directory == tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a]\nentailment = 1\n", "a.self_test: Field required"),
        (f"[a]\nentailment = 3\n{TESTS}", "a.entailment"),
        (f"[a]\ntemplte = '{{}}'\n{TESTS}", "a.templte: Extra inputs"),
        (f"[a]\ntemplate = 'none'\n{TESTS}", "template is 'none'"),
        (f"[a]\ncontradiction = 0\n{TESTS}", "same column"),
        ("[a", "unreadable"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        load_catalogue(catalogue_of(tmp_path, text))
    assert told in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"nothing\.toml: unreadable"):
        load_catalogue(tmp_path / "nothing.toml")
