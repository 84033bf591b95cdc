"""A training run of seconds writes a checkpoint that plain transformers reads and that scores pairs."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lab.checkpoint import load_checkpoint
from lab.demo_model import Size
from lab.evaluate import Figures, load_scorer
from lab.model_card import Run, write_card
from lab.phrasings import TEMPLATE
from lab.texts import FAMILIES
from lab.train_demo import Recipe, fit, pair_losses

TINY = Recipe(size=Size(layers=2, hidden=64, intermediate=64, positions=256), epochs=0.01, batch_tokens=512)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    fit(out, seed=1, minutes=None, threads=1, echo=lambda line: None, recipe=TINY)
    return out


def test_writes_the_files_of_a_zero_shot_checkpoint(checkpoint: Path):
    assert {file.name for file in checkpoint.iterdir()} == {
        "config.json",
        "configuration.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    }
    pipeline = json.loads((checkpoint / "configuration.json").read_text(encoding="utf-8"))
    assert pipeline["task"] == "zero-shot-classification"
    assert pipeline["model"]["type"] == "structbert"
    assert pipeline["preprocessor"]["type"] == "zero-shot-cls-tokenizer"
    assert pipeline["tagmill"]["template"] == TEMPLATE


def test_loads_as_plain_bert_with_three_classes(checkpoint: Path):
    model = load_checkpoint(checkpoint)
    assert model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert all(weight.isfinite().all() for weight in model.state_dict().values())


def test_scores_pairs_of_any_length_in_their_order(checkpoint: Path):
    scorer = load_scorer(checkpoint)
    pairs = [("快递" * 300, "物流配送"), ("refund please", "退款退货"), ("好", "正面")]
    together = scorer.score(pairs)
    assert together.shape == (3, 3)
    for row, pair in zip(together, pairs, strict=True):
        torch.testing.assert_close(scorer.score([pair])[0], row, atol=1e-4, rtol=1e-4)


def test_the_same_seed_gives_the_same_weights(checkpoint: Path, tmp_path: Path):
    fit(tmp_path, seed=1, minutes=None, threads=1, echo=lambda line: None, recipe=TINY)
    again, first = load_checkpoint(tmp_path).state_dict(), load_checkpoint(checkpoint).state_dict()
    assert all(again[name].equal(weight) for name, weight in first.items())


def test_no_time_left_still_writes_a_checkpoint(tmp_path: Path):
    run = fit(tmp_path, seed=1, minutes=1e-9, threads=1, echo=lambda line: None, recipe=TINY)
    assert run.steps == 0
    load_checkpoint(tmp_path)


def test_the_card_names_every_family_and_leaves_no_blank(checkpoint: Path, tmp_path: Path):
    copy = shutil.copytree(checkpoint, tmp_path / "demo")
    figures = Figures(**dict.fromkeys(Figures.__slots__, 0.5))
    run = Run(seed=1, threads=2, steps=10, epochs=1, minutes=0.2)
    write_card(copy, run, dict.fromkeys(FAMILIES, figures), dict.fromkeys(FAMILIES, 0.25))
    card = (copy / "README.md").read_text(encoding="utf-8")
    assert all(f"| {family} | 0.50 |" in card for family in FAMILIES)
    assert "$" not in card


def test_losses_are_small_when_the_right_label_alone_is_entailed():
    logits = torch.tensor([[[9.0, 0.0, -9.0], [-9.0, 0.0, 9.0]]])
    right, wrong = pair_losses(logits, torch.tensor([0]), 3.0), pair_losses(logits, torch.tensor([1]), 3.0)
    assert max(right) < 0.01
    assert min(wrong) > 5
