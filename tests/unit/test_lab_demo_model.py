"""The demo network scores pairs one segment at a time and still is plain BERT."""

import pytest
import torch
from transformers import BertForSequenceClassification

from lab.demo_model import Segment, Size, encode, entail, new_model, pin

SMALL = Size(layers=3, hidden=128, intermediate=64, positions=64)
TEXTS = [[2, 9, 10, 11, 12, 3], [2, 13, 14, 15, 16, 3]]
HYPOTHESES = [[20, 21, 3], [22, 23, 3], [24, 25, 3]]


@pytest.fixture
def model() -> BertForSequenceClassification:
    torch.manual_seed(1)
    return new_model(SMALL, vocabulary=40, dropout=0.0).eval()


def segment(model: BertForSequenceClassification, rows: list[list[int]], *, which: int, first: int) -> Segment:
    tokens = torch.tensor(rows)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    return encode(model, tokens, mask, segment=which, first=torch.full((len(rows),), first))


def whole_pairs(model: BertForSequenceClassification) -> torch.Tensor:
    rows = torch.tensor([text + hypothesis for text in TEXTS for hypothesis in HYPOTHESES])
    types = (torch.arange(rows.shape[1]) >= len(TEXTS[0])).long().expand_as(rows)
    return model(input_ids=rows, token_type_ids=types).logits.view(len(TEXTS), len(HYPOTHESES), 3)


@torch.no_grad()
def test_scores_by_segment_equal_those_of_whole_pairs(model: BertForSequenceClassification):
    texts = segment(model, TEXTS, which=0, first=0)
    hypotheses = segment(model, HYPOTHESES, which=1, first=len(TEXTS[0]))
    torch.testing.assert_close(entail(model, texts, hypotheses), whole_pairs(model), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_nothing(model: BertForSequenceClassification):
    tokens = torch.tensor([[*TEXTS[0], 0, 0]])
    padded = encode(model, tokens, tokens != 0, segment=0, first=torch.zeros(1, dtype=torch.long))
    alone = segment(model, TEXTS[:1], which=0, first=0)
    hypotheses = segment(model, HYPOTHESES, which=1, first=6)
    torch.testing.assert_close(entail(model, padded, hypotheses), entail(model, alone, hypotheses))


def test_a_step_of_training_leaves_the_segments_apart(model: BertForSequenceClassification):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    entail(
        model, segment(model, TEXTS, which=0, first=0), segment(model, HYPOTHESES, which=1, first=6)
    ).square().mean().backward()
    optimiser.step()
    pin(model)
    test_scores_by_segment_equal_those_of_whole_pairs(model)


def test_the_first_layer_looks_at_the_neighbours(model: BertForSequenceClassification):
    rows = torch.tensor([[2, *range(5, 25), 3]])
    attention = model.bert(input_ids=rows, output_attentions=True).attentions[0][0]
    places = torch.arange(5, 15)
    assert attention[0, places, places - 1].min() > 0.5
    assert attention[1, places, places + 1].min() > 0.5
