"""Checkpoints with random weights in StructBERT's sizes and format; speed does not depend on the weights."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.workload import IDEOGRAPHS

SIZES: Final = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
_VOCABULARY: Final = 21128
_SPECIALS: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_checkpoint(folder: Path, size: str, *, seed: int = 1) -> Path:
    """Write a checkpoint of this size in ModelScope's format to `folder`, which it returns."""
    folder.mkdir(parents=True)
    words = [*_SPECIALS, *IDEOGRAPHS]
    words += [f"[unused{i}]" for i in range(_VOCABULARY - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    sizes = {**SIZES[size], "vocab_size": _VOCABULARY, "max_position_embeddings": 512, "type_vocab_size": 2}
    _write_json(folder / "config.json", {**sizes, "model_type": "structbert", "hidden_act": "gelu"})
    _write_json(folder / "configuration.json", _CONFIGURATION)
    save_file(_weights(sizes, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


_CONFIGURATION: Final = {
    "framework": "pytorch",
    "task": "zero-shot-classification",
    "model": {"type": "structbert", "id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}},
    "preprocessor": {"type": "zero-shot-cls-tokenizer"},
    "pipeline": {"type": "zero-shot-classification"},
}


def _weights(sizes: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    options = {**sizes, "num_labels": 3}
    network = BertForSequenceClassification(BertConfig(**options))
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
