"""Random checkpoints in ModelScope's StructBERT zero-shot format, in every variant that is known to exist.

The networks are untrained and small, with one property of the true ones: 64 dimensions a head, where dividing by the
square root, as ModelScope does, and multiplying by its inverse give the same bits.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

IDEOGRAPHS = (
    "世界那么大我想去看家居旅游科技军事戏故积极消中性的快递三天了还没有送到物流信息也不更新登录退款发票账号密码"
    "这句话是关于热身一二四五六七八九十商品质量客服态度差好评买卖价格优惠券地址修改订单取消售后保修手机电脑屏幕"
)
WORDS = ("app", "crash", "order", "refund", "login", "iphone", "hello", "the", "is", "not", "ing", "ed", "er", "15")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PUNCTUATION = "，。！？：；、（）《》“”…—￥"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψω"


def vocabulary() -> list[str]:
    """About 600 entries: ideographs, letters and pieces of words, as in the true one."""
    letters = string.ascii_lowercase + string.digits + GREEK
    singles = [*letters, *string.ascii_uppercase, *string.punctuation, *PUNCTUATION, *"😀❤あアー한é"]
    pieces = [f"##{letter}" for letter in letters] + [f"##{word}" for word in WORDS]
    return list(dict.fromkeys([*SPECIALS, "[unused1]", *IDEOGRAPHS, *singles, *WORDS, *pieces]))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a checkpoint is written; the defaults are the commonest form."""

    model_type: str | None = "structbert"
    prefix: str = "bert."
    module: bool = False  # saved from a DataParallel wrapper
    gamma_beta: bool = False
    pretraining_head: bool = False
    position_ids: bool = True
    half: bool = False
    weights: str = "bin"  # bin | old-bin | safetensors
    labels: str = "label_mapping.json"  # or configuration.json, config.json
    max_length: int | None = None
    positions: int = 512
    template: str | None = None
    tokenizer: dict[str, Any] | None = None
    seed: int = 0


VARIANTS = {
    "plain": Variant(),
    "sbert": Variant(model_type="sbert", labels="configuration.json"),
    "bert": Variant(model_type="bert", labels="config.json"),
    "untyped": Variant(model_type=None),
    "encoder-prefix": Variant(prefix="encoder."),
    "module-prefix": Variant(module=True),
    "gamma-beta": Variant(gamma_beta=True),
    "pretraining-head": Variant(pretraining_head=True),
    "no-position-ids": Variant(position_ids=False),
    "half": Variant(half=True),
    "old-format": Variant(weights="old-bin"),
    "safetensors": Variant(weights="safetensors"),
    "short": Variant(max_length=48),
    "cased": Variant(tokenizer={"do_lower_case": False}),
}


def make_checkpoint(directory: Path, variant: Variant = VARIANTS["plain"]) -> Path:
    """Write a random checkpoint of this variant into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    config = config_of(variant)
    write_json(directory / "config.json", config)
    write_json(directory / "configuration.json", configuration_of(variant))
    (directory / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    if variant.labels == "label_mapping.json":
        write_json(directory / "label_mapping.json", {"蕴含": 0, "中立": 1, "矛盾": 2})
    if variant.tokenizer is not None:
        write_json(directory / "tokenizer_config.json", variant.tokenizer)
    write_weights(directory, tensors_of(variant), variant.weights)
    return directory


def config_of(variant: Variant) -> dict[str, Any]:
    config: dict[str, Any] = {
        "vocab_size": len(vocabulary()) + 3,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "max_position_embeddings": variant.positions,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
    }
    if variant.model_type is not None:
        config["model_type"] = variant.model_type
    if variant.prefix != "bert.":
        config["base_model_prefix"] = variant.prefix.removesuffix(".")
    if variant.labels == "config.json":
        config["label2id"] = {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    return config


def configuration_of(variant: Variant) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "framework": "pytorch",
        "task": "zero-shot-classification",
        "model": {"type": "structbert"},
        "preprocessor": {"type": "zero-shot-cls-tokenizer"},
        "pipeline": {"type": "zero-shot-classification"},
    }
    if variant.labels == "configuration.json":
        configuration["model"]["id2label"] = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    if variant.max_length is not None:
        configuration["preprocessor"]["max_length"] = variant.max_length
    if variant.template is not None:
        configuration["tagmill"] = {"template": variant.template}
    return configuration


def tensors_of(variant: Variant) -> dict[str, torch.Tensor]:
    """Random weights, large enough for logits to differ, under the variant's names."""
    sizes = {key: value for key, value in config_of(variant).items() if key not in ("model_type", "label2id")}
    network = BertForSequenceClassification(BertConfig(**(sizes | {"num_labels": 3})))
    random = torch.Generator().manual_seed(variant.seed)
    tensors = {}
    for name, tensor in network.state_dict().items():
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        spread = 0.4 if name.startswith("classifier") else 0.08
        tensors[name] = torch.empty_like(tensor).normal_(centre, spread, generator=random)
    if variant.position_ids:
        tensors["bert.embeddings.position_ids"] = torch.arange(variant.positions)[None]
    if variant.pretraining_head:
        tensors["cls.predictions.bias"] = torch.zeros(7)
        tensors["cls.seq_relationship.weight"] = torch.zeros(3, 128)
    if variant.half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    return {_name_in_file(name, variant): tensor for name, tensor in tensors.items()}


def _name_in_file(name: str, variant: Variant) -> str:
    if name.startswith("bert."):
        name = variant.prefix + name.removeprefix("bert.")
    if variant.gamma_beta:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return f"module.{name}" if variant.module else name


def write_weights(directory: Path, tensors: dict[str, torch.Tensor], kind: str = "bin") -> None:
    if kind == "safetensors":
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(tensors, directory / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "bin")


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
