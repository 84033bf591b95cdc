"""BERT over pairs that lie end to end, as an OpenVINO graph: what `workers.engines.bert` computes, in one program.

Linear layers and norms see tokens without any padding. Attention alone needs rectangles: keys, values and queries are
gathered to (pairs, longest), and what was attended is gathered back, as ByteTransformer does (Zhai and others 2022,
arXiv:2210.03052). The last layer computes queries, feed-forward and all that follows for first tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13
from transformers import BertConfig

from tagging.errors import ModelRefused
from workers.engines.bert import Weights
from workers.engines.network import Packed

op: Any = opset13  # OpenVINO's operators carry no types
Node = Any

ATTENTION_PRODUCTS: Final = ("attention.scores", "attention.context")
"""How the two products of each layer's attention are called, behind the layer's name."""

_ROWS_STEP: Final = 16
"""Tokens of a pass are filled up to a multiple of this: fewer shapes to prepare kernels for, under 1 % more work."""
_MASKED: Final = np.float32(-1e30)  # finite, so that no row can become NaN; nothing of it is left after the softmax

ACTIVATIONS: Final[dict[str, Callable[[Node], Node]]] = {
    "gelu": lambda states: op.gelu(states, "erf"),
    "gelu_new": lambda states: op.gelu(states, "tanh"),
    "gelu_pytorch_tanh": lambda states: op.gelu(states, "tanh"),
    "relu": op.relu,
}


@cache
def openvino() -> ov.Core:
    """OpenVINO in this process, once and for good.

    Its CPU plugin gives the thread that loads it an alternate stack for signals, and frees it with its core: where
    several cores come and go, the next signal that a handler of Python's takes would end the process.
    """
    return ov.Core()


class Feed(NamedTuple):
    """What one pass hands to the graph, in the order of its inputs."""

    ids: NDArray[np.int32]  # (rows,): token ids
    places: NDArray[np.int32]  # (rows,): a token's position in its pair and its segment, as a row of one table
    grid: NDArray[np.int32]  # (pairs, longest): the row of each token; any row where a pair is shorter
    back: NDArray[np.int32]  # (rows,): where each row lies in the grid
    mask: NDArray[np.float32]  # (pairs, 1, 1, longest): 0, and -1e30 where a pair is shorter
    first: NDArray[np.int32]  # (pairs,): the row of each pair's first token


def feed(rows: Packed, *, segments: int) -> Feed:
    """The inputs of a pass over `rows`, filled up with tokens that no pair attends to.

    Args:
        segments: How many segments the network knows.
    """
    tokens, lengths = len(rows.ids), rows.lengths
    filling = -tokens % _ROWS_STEP
    first = np.cumsum(lengths, dtype=np.int32) - lengths
    columns = np.arange(lengths.max(), dtype=np.int32)
    present = columns < lengths[:, None]
    positions = np.broadcast_to(columns, present.shape)[present]
    return Feed(
        ids=np.pad(rows.ids, (0, filling)),
        places=np.pad(positions * np.int32(segments) + rows.segments, (0, filling)),
        grid=np.where(present, first[:, None] + columns, np.int32(0)),
        back=np.pad(np.flatnonzero(present).astype(np.int32), (0, filling)),
        mask=np.where(present, np.float32(0), _MASKED)[:, None, None, :],
        first=first,
    )


def filled(tokens: int) -> int:
    """Tokens that a pass of so many computes."""
    return tokens + -tokens % _ROWS_STEP


def build_graph(weights: Weights, config: BertConfig, *, columns: Sequence[int]) -> ov.Model:
    """The graph of a checkpoint: a `Feed` in, logits of shape (pairs, columns) out. Weights are shared, not copied.

    Raises:
        ModelRefused: The configuration asks for an activation that is not known here.
    """
    if config.hidden_act not in ACTIVATIONS:
        raise ModelRefused(f"hidden_act is {config.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}.")
    return _Builder(weights, config).graph(columns)


class _Builder:
    """Holds what every part of the graph needs: the weights, the sizes and the inputs."""

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        self._weights = weights
        self._config = config
        self._heads = config.num_attention_heads
        self._head_size = config.hidden_size // self._heads
        integers = {
            name: op.parameter(shape, ov.Type.i32, name=name)
            for name, shape in {"ids": [-1], "places": [-1], "grid": [-1, -1], "back": [-1], "first": [-1]}.items()
        }
        mask = op.parameter([-1, 1, 1, -1], ov.Type.f32, name="mask")
        self._inputs: dict[str, Node] = {name: {**integers, "mask": mask}[name] for name in Feed._fields}

    def graph(self, columns: Sequence[int]) -> ov.Model:
        states = self._embeddings()
        last = self._config.num_hidden_layers - 1
        for index in range(last):
            states = self._layer(states, f"bert.encoder.layer.{index}.", first_only=False)
        firsts = self._layer(states, f"bert.encoder.layer.{last}.", first_only=True)
        pooled = op.tanh(self._linear(firsts, "bert.pooler.dense"))
        chosen = list(columns)
        weight, bias = self._array("classifier.weight")[chosen], self._array("classifier.bias")[chosen]
        logits = self._product(pooled, weight, bias, name="classifier")
        for name, parameter in self._inputs.items():
            parameter.output(0).set_names({name})
        return ov.Model([op.result(logits)], list(self._inputs.values()), "bert")

    def _embeddings(self) -> Node:
        prefix = "bert.embeddings."
        positions = self._array(f"{prefix}position_embeddings.weight")
        segments = self._array(f"{prefix}token_type_embeddings.weight")
        places = (positions[:, None, :] + segments[None, :, :]).reshape(-1, positions.shape[1])
        words = _rows_of(self._constant(f"{prefix}word_embeddings.weight"), self._inputs["ids"])
        return self._norm(op.add(words, _rows_of(op.constant(places), self._inputs["places"])), f"{prefix}LayerNorm")

    def _layer(self, states: Node, prefix: str, *, first_only: bool) -> Node:
        """States after this layer: of all tokens, or of each pair's first."""
        context = self._attend_first(states, prefix) if first_only else self._attend_all(states, prefix)
        states = _rows_of(states, self._inputs["first"]) if first_only else states
        attended = self._linear(context, f"{prefix}attention.output.dense")
        states = self._norm(op.add(attended, states), f"{prefix}attention.output.LayerNorm")
        wide = ACTIVATIONS[self._config.hidden_act](self._linear(states, f"{prefix}intermediate.dense"))
        return self._norm(op.add(self._linear(wide, f"{prefix}output.dense"), states), f"{prefix}output.LayerNorm")

    def _attend_all(self, states: Node, prefix: str) -> Node:
        """What each token attends to, shape (rows, hidden size)."""
        together = self._linear(states, *(f"{prefix}attention.self.{name}" for name in ("query", "key", "value")))
        query, key, value = _split(_rows_of(together, self._inputs["grid"]), 3)
        context = self._attend(query, key, value, prefix)
        return _rows_of(context, self._inputs["back"])

    def _attend_first(self, states: Node, prefix: str) -> Node:
        """What each pair's first token attends to, shape (pairs, hidden size)."""
        query = self._linear(_rows_of(states, self._inputs["first"]), f"{prefix}attention.self.query")
        together = self._linear(states, *(f"{prefix}attention.self.{name}" for name in ("key", "value")))
        key, value = _split(_rows_of(together, self._inputs["grid"]), 2)
        return self._attend(op.unsqueeze(query, _integers(1)), key, value, prefix)

    def _attend(self, query: Node, key: Node, value: Node, prefix: str) -> Node:
        """Scaled dot products within each pair; (pairs, tokens, hidden size) in, (pairs x tokens, hidden size) out."""
        by_head = _integers(0, 2, 1, 3)
        queries = op.transpose(self._heads_of(query), by_head)
        keys = op.transpose(self._heads_of(key), _integers(0, 2, 3, 1))
        values = op.transpose(self._heads_of(value), by_head)
        scores = _named(op.matmul(queries, keys, False, False), prefix + ATTENTION_PRODUCTS[0])
        scaled = op.multiply(scores, op.constant(np.float32(self._head_size**-0.5)))
        shares = op.softmax(op.add(scaled, self._inputs["mask"]), 3)
        context = _named(op.matmul(shares, values, False, False), prefix + ATTENTION_PRODUCTS[1])
        return op.reshape(op.transpose(context, by_head), _integers(-1, self._heads * self._head_size), False)

    def _heads_of(self, states: Node) -> Node:
        """(pairs, tokens, hidden size) as (pairs, tokens, heads, size of a head)."""
        return op.reshape(states, _integers(0, 0, self._heads, self._head_size), True)

    def _linear(self, states: Node, *names: str) -> Node:
        """The named linear layers side by side, as one product."""
        weights = [self._array(f"{name}.weight") for name in names]
        biases = [self._array(f"{name}.bias") for name in names]
        weight, bias = (parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in (weights, biases))
        return self._product(states, weight, bias, name=names[0])

    def _product(self, states: Node, weight: NDArray[np.float32], bias: NDArray[np.float32], *, name: str) -> Node:
        product = op.matmul(states, op.constant(weight, shared_memory=True), False, True)
        return op.add(_named(product, name), op.constant(bias[None]))

    def _norm(self, states: Node, name: str) -> Node:
        centred = op.mvn(states, _integers(1), True, self._config.layer_norm_eps, "INSIDE_SQRT")
        return op.add(op.multiply(centred, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _array(self, name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._weights[name].float().numpy()
        return array

    def _constant(self, name: str) -> Node:
        return op.constant(self._array(name), shared_memory=True)


def _named(node: Node, name: str) -> Node:
    node.set_friendly_name(name)
    return node


def _integers(*values: int) -> Node:
    return op.constant(np.array(values, dtype=np.int64))


def _rows_of(states: Node, indices: Node) -> Node:
    return op.gather(states, indices, op.constant(np.int64(0)))


def _split(states: Node, parts: int) -> Sequence[Node]:
    """The last of three axes in equal parts."""
    outputs: Sequence[Node] = op.split(states, op.constant(np.int64(2)), parts).outputs()
    return outputs
