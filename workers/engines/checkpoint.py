"""A directory in the format of ModelScope's StructBERT zero-shot models: what it holds, and whether to serve it.

Such a directory holds `configuration.json` (the pipeline's), `config.json` (BERT's sizes), `vocab.txt` and the weights,
either `pytorch_model.bin` or `model.safetensors`. `read_checkpoint` reads everything but the weights and refuses what
cannot be served; `workers.engines.conversion` turns the weights into a directory that transformers loads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagging.errors import ModelRefused

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order ModelScope's loader prefers them
REQUIRED = ("configuration.json", "config.json", "vocab.txt")
OPTIONAL = ("label_mapping.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MODEL_TYPES = ("structbert", "sbert", "bert", None)
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
TASK = "zero-shot-classification"
CLASSES = 3  # entailment, neutral, contradiction
MAX_LENGTH = 512  # what ModelScope's preprocessor asks for when nobody says otherwise
SHORTEST = 8  # below this many tokens a pair holds its special tokens and nothing else worth scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A readable checkpoint directory; its weights have been hashed but not opened."""

    directory: Path
    weights: Path
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    max_length: int
    template: str | None  # None: the checkpoint does not say
    digests: Mapping[str, str]  # SHA-256 of each file that decides an answer
    fingerprint: str  # SHA-256 over those names and digests


def read_checkpoint(directory: Path) -> Checkpoint:
    """The checkpoint in `directory`.

    Raises:
        ModelRefused: A file is missing or unreadable, or it describes a model this engine does not compute.
    """
    weights = _find_files(directory)
    config = _json(directory / "config.json")
    configuration = _json(directory / "configuration.json")
    _check_configuration(directory, configuration)
    _check_config(directory, config)
    _check_classes(directory, config, configuration)
    _check_vocabulary(directory, config)
    digests = digest_files(directory, weights)
    return Checkpoint(
        directory=directory,
        weights=weights,
        config=config,
        tokenizer=_json(directory / "tokenizer_config.json", missing_ok=True),
        max_length=_max_length(directory, config, configuration),
        template=_template(directory, configuration),
        digests=digests,
        fingerprint=fingerprint(digests),
    )


def digest_files(directory: Path, weights: Path) -> dict[str, str]:
    """SHA-256 of each file that decides an answer, by name."""
    names = sorted({*REQUIRED, *OPTIONAL, weights.name})
    return {name: sha256(directory / name) for name in names if (directory / name).is_file()}


def fingerprint(digests: Mapping[str, str]) -> str:
    """One digest for a whole checkpoint; the weights' file name counts, its place on disk does not."""
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_files(directory: Path) -> Path:
    if not directory.is_dir():
        raise ModelRefused(f"{directory}: no such directory. Name a checkpoint directory, or a model of the catalogue.")
    missing = [name for name in REQUIRED if not (directory / name).is_file()]
    weights = next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)
    if weights is None:
        missing.append(" or ".join(WEIGHTS))
    if missing or weights is None:
        sharded = [path.name for path in directory.glob("*.index.json")]
        hint = f" Sharded weights ({sharded[0]}) are not read; save them as one file." if sharded else ""
        raise ModelRefused(
            f"{directory}: missing {', '.join(missing)}; this is not a ModelScope zero-shot checkpoint."
            f"{hint} Fetch the model again, or copy the missing files from its repository."
        )
    return weights


def _check_configuration(directory: Path, configuration: Mapping[str, Any]) -> None:
    task = configuration.get("task", TASK)
    if task != TASK:
        raise ModelRefused(
            f"{directory}/configuration.json: task is {task!r}, expected {TASK!r}. The siblings of the zero-shot models"
            " (nli, sentiment, ...) order their classes differently and would be misread."
        )
    kind = _section(configuration, "model").get("type", "structbert")
    if kind not in MODEL_TYPES:
        raise ModelRefused(f"{directory}/configuration.json: model.type is {kind!r}, expected 'structbert'.")


def _check_config(directory: Path, config: Mapping[str, Any]) -> None:
    where = f"{directory}/config.json"
    if config.get("model_type") not in MODEL_TYPES:
        raise ModelRefused(f"{where}: model_type is {config['model_type']!r}; this engine computes StructBERT (BERT).")
    missing = [name for name in SIZES if not isinstance(config.get(name), int)]
    if missing:
        raise ModelRefused(f"{where}: no whole number for {', '.join(missing)}. Fetch the model again.")
    if config.get("position_embedding_type") not in (None, "absolute"):
        raise ModelRefused(
            f"{where}: position_embedding_type is {config['position_embedding_type']!r}; transformers 5 computes"
            " absolute positions only. Retrain or choose a checkpoint with absolute positions."
        )
    if config["type_vocab_size"] < 2:
        raise ModelRefused(f"{where}: type_vocab_size is {config['type_vocab_size']}; a pair needs two segments.")


def _check_classes(directory: Path, config: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
    """Refuse a declared number of classes other than three; where none is declared the tensors decide."""
    for source, labels in _declared_labels(directory, config, configuration):
        if len(labels) != CLASSES:
            raise ModelRefused(
                f"{directory}: {source} declares {len(labels)} classes, expected {CLASSES} (entailment, neutral,"
                " contradiction). This is no zero-shot checkpoint."
            )
        return  # ModelScope, too, believes the first it finds


def _declared_labels(
    directory: Path, config: Mapping[str, Any], configuration: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    sections: list[tuple[str, Mapping[str, Any]]] = [
        ("label_mapping.json", {"label2id": _json(directory / "label_mapping.json", missing_ok=True)}),
        ("configuration.json model", _section(configuration, "model")),
        ("configuration.json preprocessor", _section(configuration, "preprocessor")),
        ("config.json", config),
    ]
    return [
        (f"{source} {key}".removesuffix(" label2id"), section[key])
        for source, section in sections
        for key in ("label2id", "id2label")
        if isinstance(section.get(key), dict) and section[key]
    ]


def _check_vocabulary(directory: Path, config: Mapping[str, Any]) -> None:
    where = directory / "vocab.txt"
    try:
        entries = where.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelRefused(f"{where}: not UTF-8 at byte {error.start}. Fetch the model again.") from error
    count = len(entries) - (not entries[-1])
    missing = [token for token in SPECIAL_TOKENS if token not in entries]
    if missing:
        raise ModelRefused(f"{where}: no entry for {', '.join(missing)}. This vocabulary belongs to another model.")
    if count > config["vocab_size"]:
        raise ModelRefused(
            f"{where}: {count:,} entries, but config.json says vocab_size {config['vocab_size']:,}."
            " The vocabulary belongs to another model."
        )


def _max_length(directory: Path, config: Mapping[str, Any], configuration: Mapping[str, Any]) -> int:
    """Tokens a pair may have; only `max_length` counts, ModelScope overwrites `sequence_length` with its default."""
    positions: int = config["max_position_embeddings"]
    asked = _section(configuration, "preprocessor").get("max_length")
    if asked is None:
        return min(MAX_LENGTH, positions)
    if not isinstance(asked, int) or not SHORTEST <= asked <= positions:
        raise ModelRefused(
            f"{directory}/configuration.json: preprocessor.max_length is {asked!r}, expected a whole number from"
            f" {SHORTEST} to {positions} (max_position_embeddings)."
        )
    return asked


def _template(directory: Path, configuration: Mapping[str, Any]) -> str | None:
    """The hypothesis template this checkpoint was trained with, where it says so."""
    own, model = _section(configuration, "tagmill"), _section(configuration, "model")
    template = own.get("template", model.get("template"))
    if template is not None and (not isinstance(template, str) or template.count("{}") != 1):
        raise ModelRefused(f"{directory}/configuration.json: template is {template!r}, expected one '{{}}' in a text.")
    return template


def _section(configuration: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = configuration.get(name)
    return section if isinstance(section, dict) else {}


def _json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    if missing_ok and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelRefused(f"{path}: unreadable ({error}). Fetch the model again.") from error
    if not isinstance(value, dict):
        raise ModelRefused(f"{path}: expected an object, got {type(value).__name__}.")
    return value
