"""ModelScope weights as a directory that transformers' BertForSequenceClassification loads as they are.

StructBERT's forward pass is BERT's; only the names in the file differ. The conversion is strict, because the loader is
not: with a prefix it does not expect, transformers 5 starts from random weights and says so in a log line only. Each
tensor is therefore found, or the checkpoint is refused. The result is kept in a cache folder named by the source's
fingerprint, written beside it and moved in one step, so that several processes may convert at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from tagging.errors import ModelRefused
from workers.engines.checkpoint import CLASSES, SIZES, Checkpoint, sha256

FORMAT = 1  # part of the folder's name: raise it when the conversion changes
RECORD = "tagmill.json"
CLASS_NAMES = {0: "entailment", 1: "neutral", 2: "contradiction"}  # by index, whatever the source calls them
SETTINGS = (
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
    "pad_token_id",
    "classifier_dropout",
)
EMBEDDING = "embeddings.word_embeddings.weight"
SHOWN = 5  # offending tensors named in a refusal

log = logging.getLogger(__name__)


def convert(checkpoint: Checkpoint, cache_dir: Path) -> Path:
    """The converted directory of `checkpoint`, written on the first call and verified on each.

    Raises:
        ModelRefused: A tensor is missing, unexpected, misshapen or not finite, or the cache folder cannot be written.
    """
    target = cache_dir / f"{checkpoint.fingerprint[:32]}-v{FORMAT}"
    if is_intact(target, checkpoint):
        return target
    tensors = rename(load_tensors(checkpoint.weights), prefix=checkpoint.config.get("base_model_prefix"))
    config = bert_config(checkpoint.config)
    check_tensors(tensors, config, checkpoint.weights)
    try:
        _write(target, checkpoint, tensors, config)
    except OSError as error:
        raise ModelRefused(
            f"{cache_dir}: cannot keep the converted model there ({error.strerror or error})."
            " Give a folder that is writable and has room for one more copy of the weights."
        ) from error
    del tensors
    _give_memory_back()
    return target


def is_intact(directory: Path, checkpoint: Checkpoint) -> bool:
    """Whether `directory` holds this checkpoint's conversion, with every byte as it was written."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        return record["fingerprint"] == checkpoint.fingerprint and all(
            sha256(directory / name) == digest for name, digest in record["sha256"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a weights file, which may hold tensors only: nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelRefused(f"{path}: unreadable ({reason}). It may be cut short; fetch the model again.") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a crafted file provokes
        raise ModelRefused(f"{path}: holds more than plain tensors ({type(error).__name__}); refused.") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelRefused(f"{path}: expected a flat mapping of names to tensors. Save the model's state_dict.")
    return dict(content)


def rename(tensors: Mapping[str, torch.Tensor], *, prefix: str | None = None) -> dict[str, torch.Tensor]:
    """The same tensors under BERT's names; heads and buffers that no answer needs are left out."""
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    found = next((name.removesuffix(EMBEDDING) for name in plain if name.endswith(EMBEDDING)), f"{prefix or 'bert'}.")
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in plain.items():
        if name.startswith("cls.") or name.endswith(("position_ids", "token_type_ids")):
            continue
        new = _bert_name(name, found)
        if new in renamed:
            raise ModelRefused(f"two tensors of the checkpoint become {new!r}. Save it again from one state_dict.")
        renamed[new] = tensor
    return renamed


def _bert_name(name: str, prefix: str) -> str:
    if not name.startswith("classifier."):
        name = "bert." + name.removeprefix(prefix) if name.startswith(prefix) else name
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def bert_config(source: Mapping[str, Any]) -> BertConfig:
    """BERT's configuration with the source's sizes and our class names."""
    kept = {name: source[name] for name in (*SIZES, *SETTINGS) if source.get(name) is not None}
    names = {name: index for index, name in CLASS_NAMES.items()}
    return BertConfig(
        **kept,
        id2label=dict(CLASS_NAMES),
        label2id=names,
        architectures=["BertForSequenceClassification"],
    )


def check_tensors(tensors: Mapping[str, torch.Tensor], config: BertConfig, source: Path) -> None:
    """Refuse, naming each offender, tensors that are not exactly the network's."""
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in BertForSequenceClassification(config).state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    head = shapes.get("classifier.weight", (CLASSES,))
    if head[:1] != (CLASSES,):
        raise ModelRefused(
            f"{source}: the classifier has {head[0] if head else 0} classes, expected {CLASSES} (entailment, neutral,"
            " contradiction). This is no zero-shot checkpoint."
        )
    common = shapes.keys() & expected.keys()
    offenders = {
        "missing": sorted(expected.keys() - shapes.keys()),
        "unexpected": sorted(shapes.keys() - expected.keys()),
        "misshapen": [f"{n} {shapes[n]}, expected {expected[n]}" for n in sorted(common) if shapes[n] != expected[n]],
        "not floats": [f"{n} {tensors[n].dtype}" for n in sorted(common) if not tensors[n].is_floating_point()],
        "not finite": [n for n in sorted(common) if not bool(torch.isfinite(tensors[n]).all())],
    }
    told = [f"{kind}: {_first(names)}" for kind, names in offenders.items() if names]
    if told:
        raise ModelRefused(
            f"{source}: not the network that config.json describes. {'; '.join(told)}."
            " Fetch the model again; if this is your own checkpoint, save BERT's tensors and a classifier only."
        )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _write(target: Path, checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor], config: BertConfig) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if is_intact(target, checkpoint):
            return  # another process was quicker
        log.warning("checkpoint.damaged directory=%s", target.name)
        _set_aside(target)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    try:
        _fill(draft, checkpoint, tensors, config)
        draft.chmod(0o755)
        draft.rename(target)
    except OSError:
        # Another process finished first: a folder with content cannot be replaced, and its content is ours.
        if not is_intact(target, checkpoint):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    log.info("checkpoint.converted fingerprint=%s weights=%s", checkpoint.fingerprint[:12], checkpoint.weights.name)


def _set_aside(target: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=target.parent))
    try:
        target.replace(aside)
    except FileNotFoundError:
        pass  # another process was quicker
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(draft: Path, checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor], config: BertConfig) -> None:
    stored = {name: _stored(tensor) for name, tensor in tensors.items()}
    save_file(stored, draft / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(draft)
    shutil.copyfile(checkpoint.directory / "vocab.txt", draft / "vocab.txt")
    tokenizer = {
        **checkpoint.tokenizer,
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": checkpoint.tokenizer.get("do_lower_case", True),
        "model_max_length": checkpoint.max_length,
    }
    _dump(draft / "tokenizer_config.json", tokenizer)
    for name in ("special_tokens_map.json", "added_tokens.json"):
        if (checkpoint.directory / name).is_file():
            shutil.copyfile(checkpoint.directory / name, draft / name)
    _dump(
        draft / RECORD,
        {
            "format": FORMAT,
            "fingerprint": checkpoint.fingerprint,
            "max_length": checkpoint.max_length,
            "template": checkpoint.template,
            "source": dict(checkpoint.digests),
            "sha256": {path.name: sha256(path) for path in sorted(draft.iterdir())},
        },
    )


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    # A copy: tensors that share memory, as tied or sliced ones do, cannot be written to safetensors.
    return tensor.detach().to(tensor.dtype if half else torch.float32).clone().contiguous()


def _give_memory_back() -> None:
    """Return freed memory to the system, where the C library knows how.

    glibc keeps it. A process that converts would hold a second copy of the weights for as long as it serves: 325 MB of
    them at base size, beside the mapped file that it shares with the others.
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _dump(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
