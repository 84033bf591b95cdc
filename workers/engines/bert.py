"""BERT's forward pass over pairs that lie end to end: no token of padding, and read at the first token only.

What StructBERT computes (Devlin and others 2018, arXiv:1810.04805, with absolute positions); it equals
`transformers.BertForSequenceClassification` within rounding. Only the first token of a pair is classified, so the last
layer computes queries, feed-forward and all that follows for it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from transformers import BertConfig

from workers.engines.attention import Attention
from workers.engines.linears import Linear, MakeLinear

Weights = Mapping[str, torch.Tensor]


class Rows(NamedTuple):
    """Tokens of pairs that lie end to end, on the device."""

    ids: torch.Tensor  # (tokens,)
    segments: torch.Tensor  # (tokens,)
    positions: torch.Tensor  # (tokens,): each token's place in its pair
    first: torch.Tensor  # (pairs,): where the pairs begin


class Bert:
    """A BERT with a classifier.

    Args:
        weights: As transformers names them; those of the layers are not looked at.
        layers: The encoder, as often as it is asked for.
        linear: Makes the pooler.
        columns: Which classes are answered.
    """

    def __init__(
        self,
        weights: Weights,
        config: BertConfig,
        *,
        layers: Iterable[Layer],
        linear: MakeLinear,
        columns: Sequence[int],
    ) -> None:
        self.positions = config.max_position_embeddings
        self._embeddings = Embeddings(weights, config)
        self._layers = layers
        self._last = config.num_hidden_layers - 1
        self._pooler = linear(weights["bert.pooler.dense.weight"], weights["bert.pooler.dense.bias"], "")
        self._classifier = weights["classifier.weight"][list(columns)], weights["classifier.bias"][list(columns)]

    def logits(self, rows: Rows, attention: Attention) -> torch.Tensor:
        """Logits of each pair, shape (pairs, columns)."""
        states = self._embeddings(rows)
        for index, layer in enumerate(self._layers):
            if index < self._last:
                states = layer.every(states, attention)
            else:
                states = layer.first(states, rows.first, attention)
        return F.linear(torch.tanh(self._pooler(states)), *self._classifier)


def layer_weights(weights: Weights, index: int) -> Weights:
    """The weights of one layer, by their names within it."""
    prefix = f"bert.encoder.layer.{index}."
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


class Embeddings:
    """The sum of word, position and segment, normalised."""

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        prefix = "bert.embeddings."
        self._words = weights[f"{prefix}word_embeddings.weight"]
        self._positions = weights[f"{prefix}position_embeddings.weight"]
        self._segments = weights[f"{prefix}token_type_embeddings.weight"]
        self._norm = Norm(weights, f"{prefix}LayerNorm.", config.layer_norm_eps)

    def __call__(self, rows: Rows) -> torch.Tensor:
        """States of the tokens, shape (tokens, hidden size)."""
        states = F.embedding(rows.ids, self._words)
        states = states + F.embedding(rows.segments, self._segments)
        return self._norm(states + F.embedding(rows.positions, self._positions))


class Layer:
    """One layer of the encoder: attention, then feed-forward, each added to what came in and normalised.

    Args:
        weights: By their names within the layer.
    """

    def __init__(self, weights: Weights, config: BertConfig, linear: MakeLinear) -> None:
        def made(name: str, activation: str = "") -> Linear:
            return linear(weights[f"{name}.weight"], weights[f"{name}.bias"], activation)

        self._heads = config.num_attention_heads
        self._query = made("attention.self.query")
        self._key = made("attention.self.key")
        self._value = made("attention.self.value")
        self._attended = made("attention.output.dense")
        self._attended_norm = Norm(weights, "attention.output.LayerNorm.", config.layer_norm_eps)
        self._wide = made("intermediate.dense", config.hidden_act)
        self._narrow = made("output.dense")
        self._norm = Norm(weights, "output.LayerNorm.", config.layer_norm_eps)

    def every(self, states: torch.Tensor, attention: Attention) -> torch.Tensor:
        """States of every token after this layer."""
        context = attention.every(*map(self._split, (self._query(states), self._key(states), self._value(states))))
        return self._finish(states, context)

    def first(self, states: torch.Tensor, first: torch.Tensor, attention: Attention) -> torch.Tensor:
        """States of the first token of each pair after this layer."""
        firsts = states[first]
        context = attention.first(*map(self._split, (self._query(firsts), self._key(states), self._value(states))))
        return self._finish(firsts, context)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(len(states), self._heads, -1)

    def _finish(self, states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        states = self._attended_norm(self._attended(context.flatten(1)) + states)
        return self._norm(self._narrow(self._wide(states)) + states)


class Norm:
    """Layer normalisation."""

    def __init__(self, weights: Weights, prefix: str, epsilon: float) -> None:
        self._weight, self._bias = weights[f"{prefix}weight"], weights[f"{prefix}bias"]
        self._epsilon = epsilon

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(states, self._weight.shape, self._weight, self._bias, self._epsilon)
