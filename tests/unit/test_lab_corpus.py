"""The corpus keeps its promises: valid labels, a clean split, and wordings that training never sees."""

from collections import Counter

import pytest

from lab.lexicon import Terms, load_lexicon
from lab.phrasings import Wordings, load_phrasings
from lab.texts import FAMILIES, Family, LabelledText, load_texts, of_split


@pytest.fixture(scope="module")
def texts() -> list[LabelledText]:
    return load_texts()


def held_out(wordings: Wordings) -> set[str]:
    return {*wordings.held_out_zh, *wordings.held_out_en}


def trained(wordings: Wordings) -> set[str]:
    return {*wordings.zh, *wordings.en}


def terms_of(terms: Terms) -> set[str]:
    return {*terms.zh, *terms.en}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_text_has_a_known_label_of_each_family(texts: list[LabelledText], family: Family):
    assert {text.label(family) for text in texts} == set(load_phrasings()[family])


def test_no_text_stands_in_both_splits(texts: list[LabelledText]):
    train = {text.text for text in of_split(texts, "train")}
    assert not [text.text for text in of_split(texts, "dev") if text.text in train]


def test_no_text_stands_twice(texts: list[LabelledText]):
    assert [text for text, times in Counter(text.text for text in texts).items() if times > 1] == []


def test_the_dev_split_has_several_texts_of_every_topic(texts: list[LabelledText]):
    counts = Counter(text.topic for text in of_split(texts, "dev"))
    assert len(counts) == 30
    assert min(counts.values()) >= 8


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_wordings_are_in_neither_phrasings_nor_lexicon_nor_texts_to_train_on(
    texts: list[LabelledText], family: Family
):
    wordings = load_phrasings()[family].values()
    kept_out = set().union(*map(held_out, wordings))
    in_training = set().union(*map(trained, wordings), *map(terms_of, load_lexicon()[family].values()))
    in_training |= {text.text for text in of_split(texts, "train")}
    assert not kept_out & in_training


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wording_belongs_to_one_label_of_its_family(family: Family):
    counts = Counter(word for wordings in load_phrasings()[family].values() for word in trained(wordings))
    assert [word for word, labels in counts.items() if labels > 1] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_label_has_words_in_both_languages(family: Family):
    assert set(load_lexicon()[family]) == set(load_phrasings()[family])
    assert all(terms.zh and terms.en for terms in load_lexicon()[family].values())
