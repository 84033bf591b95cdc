"""build_engine gives an engine that is loaded, checked and says what it is, here or in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tagging.errors import ModelRefused
from workers.engines.build import build_engine, child_environment
from workers.engines.nli import NliEngine
from workers.engines.revival import RevivedEngine
from workers.ports import Pair

CANDIDATES = [
    Pair(text, label) for text in ("我要退款", "快递没有送到", "登录不了") for label in ("物流", "退款", "登录", "好")
]
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without a GPU says")


@pytest.fixture
def catalogue(tmp_path: Path, open_engine: Callable[..., NliEngine], checkpoint_dir: Callable[[str], Path]) -> Path:
    """A catalogue with one fetched model whose self-test this random network happens to pass, and one that fails it."""
    logits = open_engine().entail(CANDIDATES).logits
    margins = {pair: logit.entailment - logit.contradiction for pair, logit in zip(CANDIDATES, logits, strict=True)}
    yes, no = max(margins, key=lambda pair: margins[pair]), min(margins, key=lambda pair: margins[pair])
    middle = (margins[yes] + margins[no]) / 2
    assert margins[yes] > middle > margins[no]
    (tmp_path / "models").mkdir()
    for name in ("good", "swapped"):
        _copy_with_bias(checkpoint_dir("plain"), tmp_path / "models" / name, -middle)
    path = tmp_path / "models.toml"
    path.write_text(
        "".join(
            f'[{name}]\nsource = "x/y"\n{columns}\n'
            f"self_test.entailed = {list(yes[:2])}\nself_test.contradicted = {list(no[:2])}\n"
            for name, columns in (("good", "entailment = 0"), ("swapped", "entailment = 2\ncontradiction = 0"))
        ),
        encoding="utf-8",
    )
    return path


def _copy_with_bias(source: Path, target: Path, bias: float) -> None:
    """A copy of a checkpoint whose entailment logit is shifted, so that zero lies between two pairs' margins."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = torch.load(target / "pytorch_model.bin")
    tensors["classifier.bias"][0] += bias
    torch.save(tensors, target / "pytorch_model.bin")


def test_a_directory_is_served_under_its_own_name_and_template(
    checkpoint_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = build_engine(str(checkpoint_dir("short")), in_process=True, check=False, cache_dir=tmp_path)
    info = engine.info
    assert (info.name, info.revision, info.family, info.template) == ("short", "local", "nli", "{}")
    assert (info.max_length, info.precision, info.device) == (48, "float32", "cpu")
    assert len(info.fingerprint) == 64


def test_pairs_may_be_cut_shorter_than_the_model_reads(checkpoint_dir: Callable[[str], Path], tmp_path: Path) -> None:
    engine = build_engine(str(checkpoint_dir("plain")), max_length=40, in_process=True, check=False, cache_dir=tmp_path)
    assert engine.info.max_length == 40
    assert engine.entail([Pair("快递" * 100, "物流")]).tokens == [40]


@pytest.mark.parametrize("max_length", [7, 49])
def test_a_length_that_the_model_does_not_read_is_refused(
    checkpoint_dir: Callable[[str], Path], tmp_path: Path, max_length: int
) -> None:
    with pytest.raises(ModelRefused, match=f"max_length is {max_length}, expected 8 to 48"):
        build_engine(str(checkpoint_dir("short")), max_length=max_length, in_process=True, cache_dir=tmp_path)


def test_a_process_answers_as_the_engine_itself(
    checkpoint_dir: Callable[[str], Path], tmp_path: Path, open_engine: Callable[..., NliEngine]
) -> None:
    engine = build_engine(str(checkpoint_dir("plain")), check=False, cache_dir=tmp_path, threads=1)
    with contextlib.closing(engine):
        assert isinstance(engine, RevivedEngine)
        ours, theirs = engine.entail(CANDIDATES), open_engine(backend="openvino").entail(CANDIDATES)
        assert np.abs(np.array(ours.logits) - np.array(theirs.logits)).max() < 1e-5
        assert (ours.tokens, ours.padded_tokens) == (theirs.tokens, theirs.padded_tokens)
        assert ours.device_ms > 0


def test_a_model_that_passes_its_self_test_serves(catalogue: Path, tmp_path: Path) -> None:
    assert build_engine("good", in_process=True, cache_dir=tmp_path, catalogue=catalogue).info.name == "good"


def test_swapped_columns_are_refused_across_the_process_boundary(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="swapped columns"):
        build_engine("swapped", cache_dir=tmp_path, catalogue=catalogue, threads=1)


def test_the_fake_engine_is_built_by_name() -> None:
    assert build_engine("fake", in_process=True).info.name == "fake"


@needs_no_gpu
@pytest.mark.parametrize(
    ("device", "precision", "told"),
    [
        ("cuda:0", None, "sees 0 GPUs"),
        ("npu9", None, "expected cpu, cuda"),
        ("cpu", "int4", "a CPU computes"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_refused(
    checkpoint_dir: Callable[[str], Path], tmp_path: Path, device: str, precision: str | None, told: str
) -> None:
    with pytest.raises(ModelRefused, match=told):
        build_engine(
            str(checkpoint_dir("plain")), device=device, precision=precision, in_process=True, cache_dir=tmp_path
        )


@pytest.mark.parametrize(
    ("device", "inherited", "visible"),
    [
        ("cuda", {}, "0"),
        ("cuda:1", {}, "1"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,6"}, "6"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-8f2c"}, "GPU-8f2c"),
        ("cpu", {"CUDA_VISIBLE_DEVICES": "4,6"}, None),
    ],
)
def test_a_child_sees_its_own_gpu_only(device: str, inherited: dict[str, str], visible: str | None) -> None:
    assert child_environment(device, None, inherited).get("CUDA_VISIBLE_DEVICES") == visible


@pytest.mark.parametrize("visible", ["", "4"])
def test_a_gpu_that_was_not_given_to_the_parent_is_refused(visible: str) -> None:
    with pytest.raises(ModelRefused, match="CUDA_VISIBLE_DEVICES"):
        child_environment("cuda:1", None, {"CUDA_VISIBLE_DEVICES": visible})


def test_kernels_for_lengths_that_do_not_come_again_are_not_kept_for_ever() -> None:
    assert int(child_environment("cpu", None, {})["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 1024


def test_threads_are_set_before_torch_is_imported() -> None:
    assert child_environment("cpu", 2, {})["OMP_NUM_THREADS"] == "2"
