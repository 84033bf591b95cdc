"""ModelScope's zero-shot pipeline in a page, written from its description and sharing no code with the engine.

One text at a time, all its labels in one padded batch, the Python tokenizer's own pair encoding, plain attention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy


class Reference:
    """Scores of labels as ModelScope gives them, from a raw checkpoint directory with plain names."""

    def __init__(self, directory: Path, *, max_length: int = 512) -> None:
        self._max_length = max_length
        self.tokenizer = BertTokenizerLegacy.from_pretrained(directory)
        weights = directory / "model.safetensors"
        tensors = load_file(weights) if weights.exists() else torch.load(directory / "pytorch_model.bin")
        tensors = {name: tensor.float() for name, tensor in tensors.items() if "position_ids" not in name}
        loaded: Any = BertForSequenceClassification.from_pretrained(
            None, config=_config(directory), state_dict=tensors, attn_implementation="eager", dtype=torch.float32
        )
        self._model = loaded.eval()

    def ids(self, text: str, hypothesis: str) -> list[int]:
        return list(self._encode([(text, hypothesis)])["input_ids"][0])

    def logits(self, text: str, hypotheses: Sequence[str]) -> np.ndarray:
        batch = self._encode([(text, hypothesis) for hypothesis in hypotheses], return_tensors="pt")
        with torch.no_grad():
            output: torch.Tensor = self._model(**batch).logits
        return output.numpy()

    def scores(self, text: str, hypotheses: Sequence[str], *, multi_label: bool) -> np.ndarray:
        logits = self.logits(text, hypotheses)
        if multi_label or len(hypotheses) == 1:
            return softmax(logits[:, [2, 0]], axis=-1)[:, 1]
        return softmax(logits[:, 0], axis=-1)

    def _encode(self, pairs: list[tuple[str, str]], **options: Any) -> Any:
        # What transformers 4 did first and 5 no longer does: lower-case character by character.
        pairs = [(self._lowered(text), self._lowered(hypothesis)) for text, hypothesis in pairs]
        return self.tokenizer(
            pairs,
            padding=True,
            truncation="longest_first",
            max_length=self._max_length,
            return_token_type_ids=True,
            **options,
        )

    def _lowered(self, text: str) -> str:
        return text.replace("Σ", "σ") if self.tokenizer.do_lower_case else text


def softmax(values: np.ndarray, *, axis: int) -> np.ndarray:
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _config(directory: Path) -> Any:
    source = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    sizes = {key: value for key, value in source.items() if key not in ("model_type", "label2id")}
    return BertConfig(**(sizes | {"num_labels": 3}))
