"""The INT8 graph of a checkpoint: 8-bit linear layers, calibrated on ordinary tickets, made once and kept on disk.

Weights and activations of the linear layers are quantised with ranges that are fixed here, so that a pair's answer does
not depend on its neighbours. The products within attention stay in floating point: quantising them as well gains 2 % of
speed and changes 2 % of the demo model's first choices instead of half a percent (ADR-0013).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import openvino as ov
from transformers import BertConfig

from tagging.errors import ModelRefused
from workers.engines.bert import Weights
from workers.engines.kept import fingerprint_of, keep
from workers.engines.openvino_graph import ATTENTION_PRODUCTS, Feed, build_graph, feed, openvino
from workers.engines.passes import packed, plan
from workers.engines.tokenizing import PairEncoder, pack
from workers.ports import Pair

FORMAT: Final = 1  # part of the folder's name: raise it when the graph or the calibration changes
CALIBRATION: Final = Path(__file__).with_name("calibration.jsonl")
_PASS_TOKENS: Final = 1024

log = logging.getLogger(__name__)


class Calibration(NamedTuple):
    """A text, and the hypotheses it is asked about while ranges are measured."""

    text: str
    hypotheses: Sequence[str]


def quantized_graph(
    directory: Path, weights: Weights, config: BertConfig, *, columns: tuple[int, int], exports: Path
) -> ov.Model:
    """The INT8 graph of the converted checkpoint in `directory`, from `exports` where it was made before.

    Raises:
        ModelRefused: It has to be made and NNCF is not installed, or `exports` cannot be written.
    """
    fingerprint = fingerprint_of(directory)
    name = f"{fingerprint[:32]}-int8-{columns[0]}{columns[1]}-v{FORMAT}-openvino-{metadata.version('openvino')}"

    def export(draft: Path) -> None:
        graph = quantize(build_graph(weights, config, columns=columns), calibration_feeds(directory, config), config)
        ov.save_model(graph, draft / "model.xml", compress_to_fp16=False)

    kept = keep(exports / name, export, fingerprint=fingerprint, what="the INT8 model")
    return openvino().read_model(kept / "model.xml")


def quantize(graph: ov.Model, feeds: Sequence[Feed], config: BertConfig) -> ov.Model:
    """The graph with 8-bit linear layers, whose ranges are those that `feeds` show.

    Raises:
        ModelRefused: NNCF is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # it would ask the terminal for consent to report usage, and wait there
    try:
        import nncf
    except ImportError as error:
        raise ModelRefused(
            "precision is int8, and its model has not been made yet, which needs NNCF. Run: pip install 'tagmill[int8]'"
        ) from error

    nncf.set_log_level(logging.ERROR)
    log.info("model.quantizing passes=%d", len(feeds))
    with redirect_stdout(sys.stderr):  # where its progress belongs; stdout is for data
        quantized: ov.Model = nncf.quantize(
            graph,
            nncf.Dataset([dict(zip(Feed._fields, inputs, strict=True)) for inputs in feeds]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=list(_attention_products(config))),
        )
    return quantized


def calibration_feeds(directory: Path, config: BertConfig, path: Path = CALIBRATION) -> list[Feed]:
    """The calibration's pairs as passes, tokenised for the checkpoint in `directory`."""
    encoder = PairEncoder(directory, max_length=config.max_position_embeddings)
    pairs = [Pair(text, hypothesis) for text, hypotheses in read_calibration(path) for hypothesis in hypotheses]
    encoded = encoder.encode(pairs)
    passes = plan([pair.tokens for pair in encoded], max_tokens=_PASS_TOKENS, cost=packed)
    return [feed(pack([encoded[i] for i in places]), segments=config.type_vocab_size) for places in passes]


def read_calibration(path: Path) -> Iterator[Calibration]:
    """What the file asks, in its order."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        yield Calibration(row["text"], row["hypotheses"])


def _attention_products(config: BertConfig) -> Iterator[str]:
    for index in range(config.num_hidden_layers):
        for product in ATTENTION_PRODUCTS:
            yield f"bert.encoder.layer.{index}.{product}"
