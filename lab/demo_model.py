"""The demo model's network: a plain BERT whose weights start, and partly stay, where a small corpus can teach them.

At inference it is ``BertForSequenceClassification`` and nothing else. Two things are built into its weights:

*Segments read themselves first.* In every layer but the last, text and hypothesis do not see each other: four reserved
channels carry the segment, and one query/key coordinate of each head turns "the other segment" into a score so low that
softmax gives it nothing. Within a segment the coordinate is exactly zero. The last layer is unrestricted, and only its
[CLS] position is ever used. So training may encode each text once and each hypothesis once, and score all pairs of a
batch for the price of one token a pair: some thirty times cheaper than encoding every pair, and the same function.

*Neighbours are visible from the start.* Positions are fixed sinusoids in channels of their own, and the first layer's
heads start as "look one or two places left or right": n-grams, which a small transformer finds slowly by itself. The
layers after it start as near averages of the whole segment, so that words reach [CLS] at once; the last one starts by
comparing like with like, its keys equal to its queries.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer, BertPooler, BertSelfAttention

HEAD_DIM = 64
SEGMENT_CHANNELS = 4
POSITION_CHANNELS = 40
WALL = 12.0
"""Query and key weight of the segment channels: even after training, a crossing scores -70 or less."""
EMBEDDING_STD = 0.05
AVERAGING = 0.3
"""Query scale of the middle layers at the start: nearly uniform attention."""
GAIN = 3.0
"""Output scale of the same layers: an average of forty states is small beside the state it is added to."""
LOOKS = (-1, 1, -2, 2)
"""Where the first layer's heads look at the start, in tokens from their own place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The shape of the network."""

    layers: int = 3
    hidden: int = 256
    intermediate: int = 1024
    positions: int = 512


def new_model(size: Size, *, vocabulary: int, dropout: float) -> BertForSequenceClassification:
    """A network with structured starting weights, in float32, ready to train; seeded by torch's global generator."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // HEAD_DIM,
        intermediate_size=size.intermediate,
        max_position_embeddings=size.positions,
        hidden_dropout_prob=dropout,
        # Attention dropout would take the slow path of the CPU kernel, and channel dropout does the same work here.
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    )
    model = BertForSequenceClassification(config)
    # Segments are short: plain products beat the CPU's flash kernel, which took a fifth of a step.
    model.set_attn_implementation("eager")
    # A dropped segment channel would open the wall, so words are dropped by the sampler and not here.
    model.bert.embeddings.dropout.p = 0.0
    with torch.no_grad():
        _spread_weights(model)
        _place_positions(model)
        _look_at_neighbours(model)
    pin(model)
    return model


def _layers(model: BertForSequenceClassification) -> list[BertLayer]:
    return [cast("BertLayer", layer) for layer in model.bert.encoder.layer]


def _attention(layer: BertLayer) -> BertSelfAttention:
    return cast("BertSelfAttention", layer.attention.self)


def _spread_weights(model: BertForSequenceClassification) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    *_, last = layers = _layers(model)
    for layer in layers[1:-1]:
        _attention(layer).query.weight *= AVERAGING
        layer.attention.output.dense.weight *= GAIN
    _attention(last).key.weight.copy_(_attention(last).query.weight)
    words = model.bert.embeddings.word_embeddings.weight
    nn.init.normal_(words, std=EMBEDDING_STD)
    words[:, : SEGMENT_CHANNELS + POSITION_CHANNELS] = 0.0
    nn.init.normal_(model.classifier.weight, std=0.02)


def _frequencies() -> Tensor:
    """Angular frequencies over (0, pi), unevenly spaced so that no distance looks like another."""
    pairs = POSITION_CHANNELS // 2
    golden = torch.arange(pairs) * 0.618034 % 1.0
    return math.pi * (torch.arange(pairs) + 0.25 + 0.5 * golden) / pairs


def _place_positions(model: BertForSequenceClassification) -> None:
    table = model.bert.embeddings.position_embeddings.weight
    angles = torch.arange(table.shape[0]).unsqueeze(1) * _frequencies()
    waves = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)
    table.zero_()
    table[:, SEGMENT_CHANNELS : SEGMENT_CHANNELS + POSITION_CHANNELS] = waves * EMBEDDING_STD * math.sqrt(2)
    table.requires_grad_(False)


def _look_at_neighbours(model: BertForSequenceClassification, sharpness: float = 3.0) -> None:
    """Point the first layer's heads at fixed offsets: the query is the position turned by the offset's angle."""
    attention = _attention(_layers(model)[0])
    first = SEGMENT_CHANNELS
    for head, look in enumerate(LOOKS[: model.config.num_attention_heads]):
        for pair, frequency in enumerate(_frequencies().tolist()):
            row, column = head * HEAD_DIM + 2 * pair, first + 2 * pair
            cos, sin = math.cos(frequency * look), math.sin(frequency * look)
            rows, columns = slice(row, row + 2), slice(column, column + 2)
            attention.query.weight[rows] *= 0.1
            attention.key.weight[rows] *= 0.1
            attention.query.weight[rows, columns] = sharpness * torch.tensor([[cos, -sin], [sin, cos]])
            attention.key.weight[rows, columns] = torch.eye(2)


@torch.no_grad()
def pin(model: BertForSequenceClassification) -> None:
    """Put the segment channels and the wall back exactly; call after every step of the optimiser.

    Channels 0 and 1 hold (+, -) in the text and (0, 0) in the hypothesis, channels 2 and 3 the other way round. The
    *difference* of two equal channels stays exactly zero through every layer norm, whatever else the layer does.
    """
    embeddings = model.bert.embeddings
    reserved = slice(0, SEGMENT_CHANNELS)
    embeddings.word_embeddings.weight[:, reserved] = 0.0
    mark = 2 * EMBEDDING_STD
    embeddings.token_type_embeddings.weight[:, reserved] = torch.tensor([[mark, -mark, 0, 0], [0, 0, mark, -mark]])
    _pass_through(embeddings.LayerNorm)
    for layer in _layers(model)[:-1]:
        _build_wall(_attention(layer), model.config.num_attention_heads)
        for dense in (layer.attention.output.dense, layer.output.dense):
            dense.weight[reserved] = 0.0
            dense.bias[reserved] = 0.0
        _pass_through(layer.attention.output.LayerNorm)
        _pass_through(layer.output.LayerNorm)


def _pass_through(norm: nn.LayerNorm) -> None:
    norm.weight[:SEGMENT_CHANNELS] = 1.2
    norm.bias[:SEGMENT_CHANNELS] = 0.0


def _build_wall(attention: BertSelfAttention, heads: int) -> None:
    in_text = torch.tensor([WALL, -WALL, 0.0, 0.0])
    in_hypothesis = torch.tensor([0.0, 0.0, WALL, -WALL])
    for head in range(heads):
        last = (head + 1) * HEAD_DIM - 1
        for row, queries, keys in ((last - 1, in_text, in_hypothesis), (last, in_hypothesis, in_text)):
            for projection, channels in ((attention.query, -queries), (attention.key, keys)):
                projection.weight[row] = 0.0
                projection.weight[row, :SEGMENT_CHANNELS] = channels
                projection.bias[row] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Many encoded texts, or many encoded hypotheses."""

    states: Tensor
    """Shape ``(n, length, hidden)``, out of the last layer but one."""
    mask: Tensor
    """Shape ``(n, length)``, true where there is a token."""


def encode(
    model: BertForSequenceClassification, tokens: Tensor, mask: Tensor, *, segment: int, first: Tensor
) -> Segment:
    """Run one segment through every layer but the last, alone.

    Args:
        model: The network.
        tokens: Shape ``(n, length)``: ``[CLS] text [SEP]`` or ``hypothesis [SEP]``, padded.
        mask: Shape ``(n, length)``, true where there is a token.
        segment: 0 for texts, 1 for hypotheses.
        first: Shape ``(n,)``, the position of each first token.
    """
    positions = first.unsqueeze(1) + torch.arange(tokens.shape[1])
    positions = positions.clamp_(max=model.config.max_position_embeddings - 1)
    types = torch.full_like(tokens, segment)
    states = model.bert.embeddings(input_ids=tokens, token_type_ids=types, position_ids=positions)
    bias = torch.zeros(mask.shape).masked_fill(~mask, -1e4)[:, None, None, :].to(_autocast_dtype(states))
    for layer in _layers(model)[:-1]:
        states = layer(states, attention_mask=bias)
    return Segment(states=states, mask=mask)


def _autocast_dtype(states: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else states.dtype


def entail(model: BertForSequenceClassification, texts: Segment, hypotheses: Segment) -> Tensor:
    """Logits of every (text, hypothesis) pair: the last layer at [CLS], the pooler and the classifier.

    The query of [CLS] does not depend on the hypothesis, so attention over both segments is a blend of attention over
    each, in the proportion of their softmax masses.

    Returns:
        Shape ``(texts, hypotheses, 3)``: entailment, neutral, contradiction.
    """
    layer = _layers(model)[-1]
    attention = _attention(layer)
    start = texts.states[:, 0]
    query = _heads(attention.query(start)) * HEAD_DIM**-0.5
    text_mass, text_value = _attend_own(query, attention, texts)
    hypothesis_mass, hypothesis_value = _attend_each(query, attention, hypotheses)
    share = torch.sigmoid(hypothesis_mass - text_mass.unsqueeze(1)).unsqueeze(-1)
    context = torch.lerp(text_value.unsqueeze(1).float(), hypothesis_value.float(), share).flatten(2)
    residual = start.unsqueeze(1).expand(-1, context.shape[1], -1)
    attended = layer.attention.output(context, residual)
    states = layer.output(layer.intermediate(attended), attended)
    pooled = torch.tanh(cast("BertPooler", model.bert.pooler).dense(states))
    logits: Tensor = model.classifier(model.dropout(pooled))
    return logits.float()


def _heads(projected: Tensor) -> Tensor:
    return projected.view(*projected.shape[:-1], -1, HEAD_DIM)


def _attend_own(query: Tensor, attention: BertSelfAttention, texts: Segment) -> tuple[Tensor, Tensor]:
    keys, values = _heads(attention.key(texts.states)), _heads(attention.value(texts.states))
    scores = torch.einsum("bhd,bthd->bht", query, keys).float().masked_fill(~texts.mask.unsqueeze(1), -1e4)
    return scores.logsumexp(-1), torch.einsum("bht,bthd->bhd", scores.softmax(-1), values)


def _attend_each(query: Tensor, attention: BertSelfAttention, hypotheses: Segment) -> tuple[Tensor, Tensor]:
    keys, values = _heads(attention.key(hypotheses.states)), _heads(attention.value(hypotheses.states))
    scores = torch.einsum("bhd,mshd->bmhs", query, keys).float()
    scores = scores.masked_fill(~hypotheses.mask[None, :, None, :], -1e4)
    return scores.logsumexp(-1), torch.einsum("bmhs,mshd->bmhd", scores.softmax(-1), values)


@contextmanager
def brain_floats() -> Iterator[None]:
    """Matrix products in bfloat16 where the processor has them: some four times faster with AVX-512 BF16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
