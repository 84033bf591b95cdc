"""A training step asks every label of every family, in wordings that may train, of texts that are roughened."""

import random
from pathlib import Path

import pytest

from lab.lexicon import Composer, load_lexicon
from lab.pairs import UNLABELLED, Noise, QuestionSampler, Reader, Shares, batches, crop, targets
from lab.phrasings import TEMPLATE, load_phrasings
from lab.texts import FAMILIES, LabelledText
from lab.vocabulary import CLS, SEP, build_vocabulary, tokenizer, write_vocabulary


def a_text(text: str = "快递三天了还没到", **labels: str) -> LabelledText:
    known = {"topic": "物流配送", "intent": "催办", "sentiment": "负面", "urgency": "一般"} | labels
    return LabelledText(text=text, lang="zh", kind="ticket", split="train", **known)


def a_reader(directory: Path, noise: Noise) -> Reader:
    write_vocabulary(build_vocabulary(["快递三天了还没到", "refund please"]), directory / "vocab.txt")
    return Reader(tokenizer(directory / "vocab.txt"), random.Random(1), noise=noise)


def sampler(seed: int = 1, **shares: float) -> QuestionSampler:
    return QuestionSampler(load_phrasings(), load_lexicon(), random.Random(seed), shares=Shares(**shares))


def test_asks_one_hypothesis_for_every_label_of_every_family():
    asked = sampler().ask()
    assert [question.family for question in asked] == list(FAMILIES)
    assert [len(question.hypotheses) for question in asked] == [30, 8, 3, 2]


def test_never_asks_a_held_out_wording():
    held_out = {
        wording
        for labels in load_phrasings().values()
        for wordings in labels.values()
        for wording in (*wordings.held_out_zh, *wordings.held_out_en)
    }
    asked = sampler(canonical=0.0)
    bare = {hypothesis for _ in range(200) for question in asked.ask() for hypothesis in question.hypotheses}
    framed = {TEMPLATE.format(wording) for wording in held_out}
    assert not bare & (held_out | framed)


def test_the_same_seed_asks_the_same():
    assert sampler(3).ask() == sampler(3).ask()


def test_canonical_wordings_come_in_the_order_of_the_labels():
    asked = sampler(canonical=1.0, english=0.0, term=0.0).ask()
    for question in asked:
        labels = load_phrasings()[question.family]
        assert all(label in hypothesis for label, hypothesis in zip(labels, question.hypotheses, strict=True))


def test_a_crop_is_a_run_of_at_least_half_the_clauses():
    text = "一，二，三，四。"
    for seed in range(20):
        part = crop(text, random.Random(seed))
        assert part in text
        assert len(part) >= len(text) / 2


def test_a_text_of_one_clause_is_not_cropped():
    assert crop("快递呢", random.Random(1)) == "快递呢"


def test_reading_keeps_every_token_between_its_marks(tmp_path: Path):
    rows = a_reader(tmp_path, Noise()).read(["快递", "快递三天"])
    assert rows.tokens[:, 0].tolist() == [CLS, CLS]
    assert rows.mask.sum(1).tolist() == [4, 6]
    assert rows.tokens[1, 5] == SEP


def test_roughening_without_noise_is_reading(tmp_path: Path):
    reader = a_reader(tmp_path, Noise(crop=0.0, hide=0.0))
    assert reader.roughen(["快递三天了"]).tokens.equal(reader.read(["快递三天了"]).tokens)


def test_batches_hold_every_text_once_and_about_the_tokens_asked_for():
    texts = [a_text("快" * length) for length in range(1, 60)]
    packed = list(batches(texts, 200, random.Random(1)))
    assert sorted(len(text.text) for batch in packed for text in batch) == list(range(1, 60))
    # Lengths are blurred before sorting, so that batches differ from pass to pass: a half more than asked at most.
    assert all(len(batch) * (max(len(text.text) for text in batch) + 2) <= 300 for batch in packed)


def test_a_missing_label_is_no_target():
    labels = load_phrasings()["topic"]
    assert targets([a_text(), a_text(topic="")], "topic", labels).tolist() == [0, UNLABELLED]


def test_composed_texts_use_the_terms_of_their_own_topic():
    lexicon = load_lexicon()
    composer = Composer(lexicon, random.Random(1))
    for text in (composer.compose() for _ in range(100)):
        if text.topic:
            terms = lexicon["topic"][text.topic]
            assert any(term in text.text for term in (*terms.zh, *terms.en))


@pytest.mark.parametrize("family", FAMILIES)
def test_composed_texts_have_known_labels_or_none(family: str):
    composer = Composer(load_lexicon(), random.Random(2))
    known = {"", *load_phrasings()[family]}  # type: ignore[index]  # parametrize loses the literal type
    assert {composer.compose().label(family) for _ in range(200)} <= known  # type: ignore[arg-type]  # likewise
