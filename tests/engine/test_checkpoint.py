"""A checkpoint is converted whole and exactly, or refused with every offender named."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tagging.errors import ModelRefused
from tests.engine.checkpoints import (
    VARIANTS,
    Variant,
    config_of,
    configuration_of,
    make_checkpoint,
    tensors_of,
    write_json,
    write_weights,
)
from workers.engines.checkpoint import read_checkpoint
from workers.engines.conversion import convert

PLAIN = VARIANTS["plain"]


@pytest.fixture
def directory(tmp_path: Path, checkpoint_dir: Callable[[str], Path]) -> Path:
    """A plain checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint_dir("plain"), tmp_path / "checkpoint"))


def with_config(directory: Path, **changes: Any) -> Path:
    write_json(directory / "config.json", {**config_of(PLAIN), **changes})
    return directory


def with_configuration(directory: Path, **changes: Any) -> Path:
    write_json(directory / "configuration.json", {**configuration_of(PLAIN), **changes})
    return directory


def with_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], object], kind: str = "bin") -> Path:
    tensors = tensors_of(PLAIN)
    change(tensors)
    write_weights(directory, tensors, kind)
    return directory


def refusal(directory: Path, tmp_path: Path) -> str:
    """Why reading and converting `directory` is refused; nothing may be left behind."""
    cache = tmp_path / "cache"
    with pytest.raises(ModelRefused) as refused:
        convert(read_checkpoint(directory), cache)
    assert not cache.exists() or not list(cache.iterdir())
    return str(refused.value)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_becomes_the_same_tensors_under_berts_names(variant: str, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "source", VARIANTS[variant])
    converted = load_file(convert(read_checkpoint(directory), tmp_path / "cache") / "model.safetensors")
    expected = tensors_of(Variant(position_ids=False, half=VARIANTS[variant].half))
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)
    assert {tensor.dtype for tensor in converted.values()} == {
        torch.float16 if VARIANTS[variant].half else torch.float32
    }


def test_classes_are_named_by_their_index_whatever_the_source_calls_them(directory: Path, tmp_path: Path) -> None:
    write_json(directory / "label_mapping.json", {"矛盾": 0, "中立": 1, "蕴含": 2})
    config = json.loads((convert(read_checkpoint(directory), tmp_path / "cache") / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["id2label"] == {"0": "entailment", "1": "neutral", "2": "contradiction"}


def test_settings_that_would_change_what_transformers_returns_are_left_behind(directory: Path, tmp_path: Path) -> None:
    with_config(directory, return_dict=False, torch_dtype="float16", is_decoder=True, pruned_heads={"0": [1]})
    config = json.loads((convert(read_checkpoint(directory), tmp_path / "cache") / "config.json").read_text())
    assert not {"return_dict", "pruned_heads"} & config.keys()
    assert not config.get("is_decoder")


def test_safetensors_are_preferred_where_both_are_there(directory: Path) -> None:
    write_weights(directory, tensors_of(replace(PLAIN, seed=1)), "safetensors")
    assert read_checkpoint(directory).weights.name == "model.safetensors"


def test_length_and_template_come_from_the_configuration(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(make_checkpoint(tmp_path / "a", Variant(max_length=48, template="关于{}")))
    assert (checkpoint.max_length, checkpoint.template) == (48, "关于{}")


def test_a_template_may_stand_in_the_model_section(directory: Path) -> None:
    with_configuration(directory, model={"type": "structbert", "template": "这是{}"})
    assert read_checkpoint(directory).template == "这是{}"


def test_without_them_the_defaults_are_modelscopes(directory: Path) -> None:
    with_configuration(directory, preprocessor={"type": "zero-shot-cls-tokenizer", "sequence_length": 64})
    checkpoint = read_checkpoint(directory)
    assert (checkpoint.max_length, checkpoint.template) == (512, None)


# What is refused while reading


@pytest.mark.parametrize("name", ["configuration.json", "config.json", "vocab.txt", "pytorch_model.bin"])
def test_a_missing_file_is_named(directory: Path, tmp_path: Path, name: str) -> None:
    (directory / name).unlink()
    assert name in refusal(directory, tmp_path)


def test_sharded_weights_are_told_apart_from_missing_ones(directory: Path, tmp_path: Path) -> None:
    (directory / "pytorch_model.bin").rename(directory / "pytorch_model.bin.index.json")
    assert "Sharded" in refusal(directory, tmp_path)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no such directory"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"model_type": "deberta-v2"}, "deberta-v2"),
        ({"type_vocab_size": 1}, "type_vocab_size is 1"),
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": 9}, "vocab_size 9"),
    ],
)
def test_a_network_that_is_not_computed_here_is_refused(
    directory: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    assert told in refusal(with_config(directory, **changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "nli"}, "'nli'"),
        ({"model": {"type": "veco"}}, "'veco'"),
        ({"preprocessor": {"max_length": 513}}, "513"),
        ({"preprocessor": {"max_length": 2}}, "from 8 to 512"),
        ({"tagmill": {"template": "no slot"}}, "no slot"),
    ],
)
def test_a_pipeline_that_means_something_else_is_refused(
    directory: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    assert told in refusal(with_configuration(directory, **changes), tmp_path)


def test_two_declared_classes_are_refused(directory: Path, tmp_path: Path) -> None:
    write_json(directory / "label_mapping.json", {"是": 0, "否": 1})
    assert "2 classes" in refusal(directory, tmp_path)


def test_a_vocabulary_without_its_special_tokens_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n一\n", encoding="utf-8")
    assert "[SEP], [MASK]" in refusal(directory, tmp_path)


def test_a_broken_json_file_is_named(directory: Path, tmp_path: Path) -> None:
    (directory / "config.json").write_text("{", encoding="utf-8")
    assert "config.json: unreadable" in refusal(directory, tmp_path)


# What is refused while converting


def test_a_missing_tensor_is_named(directory: Path, tmp_path: Path) -> None:
    with_tensors(directory, lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.weight"))
    assert "missing: bert.encoder.layer.1.output.dense.weight" in refusal(directory, tmp_path)


def test_of_many_offenders_five_are_named_and_the_rest_counted(directory: Path, tmp_path: Path) -> None:
    def drop_layer(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layer.1." in name]:
            del tensors[name]

    told = refusal(with_tensors(directory, drop_layer), tmp_path)
    assert told.count("bert.encoder.layer.1.") == 5
    assert "and 11 more" in told


def test_an_unexpected_tensor_is_named(directory: Path, tmp_path: Path) -> None:
    with_tensors(directory, lambda tensors: tensors.update({"bert.adapter.weight": torch.zeros(2)}))
    assert "unexpected: bert.adapter.weight" in refusal(directory, tmp_path)


def test_a_misshapen_tensor_is_shown_with_both_shapes(directory: Path, tmp_path: Path) -> None:
    with_tensors(directory, lambda tensors: tensors.update({"bert.pooler.dense.bias": torch.zeros(64)}))
    assert "misshapen: bert.pooler.dense.bias (64,), expected (128,)" in refusal(directory, tmp_path)


def test_another_number_of_classes_is_refused(directory: Path, tmp_path: Path) -> None:
    with_tensors(directory, lambda tensors: tensors.update({"classifier.weight": torch.zeros(2, 128)}))
    assert "2 classes, expected 3" in refusal(directory, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(directory: Path, tmp_path: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["classifier.bias"][1] = value

    assert "not finite: classifier.bias" in refusal(with_tensors(directory, spoil), tmp_path)


def test_whole_number_weights_are_refused(directory: Path, tmp_path: Path) -> None:
    with_tensors(directory, lambda tensors: tensors.update({"classifier.bias": torch.zeros(3, dtype=torch.int8)}))
    assert "not floats: classifier.bias torch.int8" in refusal(directory, tmp_path)


@pytest.mark.parametrize("kind", ["bin", "old-bin", "safetensors"])
def test_a_file_that_is_cut_short_is_refused(directory: Path, tmp_path: Path, kind: str) -> None:
    weights = read_checkpoint(with_tensors(directory, lambda _: None, kind)).weights
    weights.write_bytes(weights.read_bytes()[:-5000])
    assert weights.name in refusal(directory, tmp_path)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(directory: Path, tmp_path: Path) -> None:
    torch.save({"bert": Payload(tmp_path / "ran")}, directory / "pytorch_model.bin")
    assert "pytorch_model.bin" in refusal(directory, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_wrapped_state_dict_is_refused(directory: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": tensors_of(PLAIN)}, directory / "pytorch_model.bin")
    assert "flat mapping" in refusal(directory, tmp_path)


def test_a_cache_folder_that_cannot_be_written_is_refused_with_the_remedy(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelRefused, match="writable"):
        convert(read_checkpoint(directory), tmp_path / "file")


# The cache


def test_the_fingerprint_is_of_the_content_and_not_of_its_place(directory: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(directory, tmp_path / "copy")
    assert read_checkpoint(directory).fingerprint == read_checkpoint(copy).fingerprint


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "configuration.json", "pytorch_model.bin"])
def test_the_fingerprint_moves_with_every_file_that_decides_an_answer(directory: Path, name: str) -> None:
    before = read_checkpoint(directory).fingerprint
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content.replace(b"\n}", b" \n}") if name.endswith("json") else content + b"\n")
    assert read_checkpoint(directory).fingerprint != before


def test_a_second_conversion_writes_nothing(directory: Path, tmp_path: Path) -> None:
    first = convert(read_checkpoint(directory), tmp_path / "cache")
    written = (first / "model.safetensors").stat()
    second = convert(read_checkpoint(directory), tmp_path / "cache")
    assert second == first
    assert (second / "model.safetensors").stat() == written


def test_a_flipped_bit_in_the_converted_weights_is_found_and_mended(directory: Path, tmp_path: Path) -> None:
    weights = convert(read_checkpoint(directory), tmp_path / "cache") / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    convert(read_checkpoint(directory), tmp_path / "cache")
    assert weights.read_bytes() == good


def test_conversions_at_once_leave_one_intact_directory(directory: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(directory)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(convert(checkpoint, tmp_path / "cache"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert list((tmp_path / "cache").iterdir()) == [found[0]]


class Payload:
    """Unpickling it makes a file, unless unpickling is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))
