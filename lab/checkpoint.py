"""A trained network on disk, in the format of ModelScope's StructBERT zero-shot checkpoints."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from lab.phrasings import TEMPLATE

LABELS = ("entailment", "neutral", "contradiction")


def save_checkpoint(model: BertForSequenceClassification, out: Path) -> None:
    """Write weights in FP16 and both configurations; ``vocab.txt`` is the caller's."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # the library keeps it to its owner; a worker may be another user
    _write(out / "config.json", _network(model))
    _write(out / "configuration.json", _pipeline(model.config.max_position_embeddings))
    _write(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "model_max_length": model.config.max_position_embeddings,
        },
    )


def load_checkpoint(directory: Path) -> BertForSequenceClassification:
    """Any such checkpoint as plain BERT in float32.

    Raises:
        ValueError: The file's tensors are not exactly those of the network that ``config.json`` describes.
    """
    # The directory says "structbert", which transformers does not know; its network is plain BERT.
    network = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config = BertConfig.from_dict(network | {"model_type": "bert"})
    loaded = BertForSequenceClassification.from_pretrained(
        directory, config=config, dtype=torch.float32, output_loading_info=True
    )
    model, report = cast("tuple[BertForSequenceClassification, Mapping[str, Iterable[object]]]", loaded)
    if wrong := {kind: sorted(map(str, names)) for kind, names in report.items() if names}:
        raise ValueError(f"{directory}: weights and config.json disagree: {wrong}")
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model


def _network(model: BertForSequenceClassification) -> dict[str, object]:
    config = model.config
    return {
        "model_type": "structbert",
        "architectures": ["SbertForSequenceClassification"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": 0,
        "num_labels": len(LABELS),
        "id2label": {str(index): label for index, label in enumerate(LABELS)},
        "label2id": {label: index for index, label in enumerate(LABELS)},
        "dtype": "float16",
    }


def _pipeline(max_length: int) -> dict[str, object]:
    return {
        "framework": "pytorch",
        "task": "zero-shot-classification",
        "model": {"type": "structbert"},
        "preprocessor": {"type": "zero-shot-cls-tokenizer", "max_length": max_length},
        "pipeline": {"type": "zero-shot-classification"},
        # ModelScope ignores this section; its own default template is the bare label, which works nearly as well.
        "tagmill": {"name": "demo", "template": TEMPLATE},
    }


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
