"""A worker that would answer wrongly does not start, and says why in words."""

import shutil
import socket
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.commands import ROOT, Tagmill
from tests.servers import RedisServer, launched

DEMO = ROOT / "workers" / "engines" / "demo_model"


@pytest.fixture(scope="module")
def environ():
    with launched(RedisServer) as server:
        yield {f"TAGMILL_{part}__URL": server.url for part in ("BROKER", "RESULTS", "CACHE")}


@pytest.fixture
def swapped(tmp_path) -> Path:
    """The demo model with its entailment and contradiction columns exchanged."""
    folder = shutil.copytree(DEMO, tmp_path / "swapped")
    tensors = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][[2, 1, 0]].contiguous()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_model_whose_columns_are_swapped_refuses_to_serve(environ, tmp_path, swapped):
    tagmill = Tagmill(tmp_path, {**environ, "TAGMILL_MODEL__NAME": str(swapped)})
    started, checked = tagmill("worker"), tagmill("check", "--json")
    assert started.code == 1
    assert "columns" in started.err
    assert "Traceback" not in started.err
    assert checked.code == 1
    assert [row["name"] for row in checked.rows if not row["ok"]] == ["model"]


def test_the_demo_model_itself_passes(environ, tmp_path):
    checked = Tagmill(tmp_path, {**environ, "TAGMILL_MODEL__NAME": "demo"})("check", "--json")
    assert checked.code == 0, checked.out
    assert "self-test passed" in checked.rows[-1]["text"]


def test_a_model_that_nobody_knows_is_refused_with_those_known(environ, tmp_path):
    started = Tagmill(tmp_path, {**environ, "TAGMILL_MODEL__NAME": "gpt"})("worker")
    assert started.code == 1
    assert "demo" in started.err


def test_a_port_for_metrics_that_is_taken_is_refused_with_what_to_do(environ, tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        started = Tagmill(tmp_path, {**environ, "TAGMILL_MODEL__NAME": "fake", "TAGMILL_METRICS__PORT": port})("worker")
    assert started.code == 2
    assert f"settings: metrics.port: cannot listen on 127.0.0.1:{port}" in started.err
    assert "Traceback" not in started.err


def test_a_ledger_out_of_reach_is_refused(environ, tmp_path):
    nowhere = "postgresql://nobody:hunter2@127.0.0.1:1/tags"
    started = Tagmill(tmp_path, {**environ, "TAGMILL_MODEL__NAME": "fake", "TAGMILL_LEDGER__URL": nowhere})("worker")
    assert started.code == 3
    assert "StoreUnavailable" in started.err
    assert "hunter2" not in started.err
