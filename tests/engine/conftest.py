"""Checkpoints made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from tests.engine.checkpoints import VARIANTS, make_checkpoint
from tests.engine.networks import MAX_LENGTH
from workers.engines.checkpoint import read_checkpoint
from workers.engines.conversion import convert
from workers.engines.nli import NliEngine
from workers.engines.openvino_network import OpenVinoNetwork
from workers.engines.tokenizing import PairEncoder
from workers.engines.torch_network import TorchNetwork
from workers.ports import ModelInfo


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a variant, by name; made on first use. Copy it before changing it."""
    root = tmp_path_factory.mktemp("checkpoints")

    def directory(variant: str) -> Path:
        path = root / variant
        return path if path.exists() else make_checkpoint(path, VARIANTS[variant])

    return directory


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="session")
def open_engine(checkpoint_dir: Callable[[str], Path], cache_dir: Path) -> Callable[..., NliEngine]:
    """An engine on the CPU for a variant, without warm-up and self-test."""

    def engine(
        variant: str = "plain",
        *,
        precision: str = "float32",
        max_tokens: int = 1024,
        exact: bool = False,
        backend: str = "torch",
    ) -> NliEngine:
        checkpoint = read_checkpoint(checkpoint_dir(variant))
        info = ModelInfo(
            name=variant,
            fingerprint=checkpoint.fingerprint,
            revision="local",
            family="nli",
            precision=precision,
            device="cpu",
            max_length=checkpoint.max_length,
            template=checkpoint.template or "{}",
        )
        directory = convert(checkpoint, cache_dir)
        encoder = PairEncoder(directory, max_length=info.max_length, protect_special_tokens=not exact)
        network: Any = (
            TorchNetwork(directory, device="cpu", precision=precision)
            if backend == "torch"
            else OpenVinoNetwork(directory, precision=precision, exports=cache_dir / "exported", threads=1)
        )
        return NliEngine(encoder, network, info=info, max_tokens=max_tokens)

    return engine


@pytest.fixture(scope="session")
def converted(checkpoint_dir: Callable[[str], Path], cache_dir: Path) -> Path:
    return convert(read_checkpoint(checkpoint_dir("plain")), cache_dir)


@pytest.fixture(scope="session")
def encoder(converted: Path) -> PairEncoder:
    return PairEncoder(converted, max_length=MAX_LENGTH)


@pytest.fixture(scope="session")
def plain_bert_in() -> Callable[[Path], Any]:
    """transformers' own network on a converted checkpoint."""
    return lambda directory: BertForSequenceClassification.from_pretrained(
        directory, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="session")
def plain_bert(plain_bert_in: Callable[[Path], Any], converted: Path) -> Any:
    return plain_bert_in(converted)
