"""The curl line and the Node program of ``docs/message-contract.md`` get their answers from a real server."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.children import ROOT, need
from tests.http.fixtures import Api
from tests.http.served import Server

PAGE = (ROOT / "docs" / "message-contract.md").read_text(encoding="utf-8")


def snippet(language: str, port: int) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "127.0.0.1:8780" in found
    return str(found).replace("127.0.0.1:8780", f"127.0.0.1:{port}")


def run(*command: str, token: str) -> str:
    environ = {**os.environ, "TAGMILL_TOKEN": token}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def server(open_api: Callable[..., Api]) -> Iterator[Server]:
    with closing(Server(open_api(), receive_s=10)) as server:
        yield server


def test_curl_gets_an_answer(server: Server) -> None:
    need("curl")
    answer = json.loads(run("sh", "-c", snippet("sh", server.port), token=server.api.key()))
    assert answer["ref"] == "T-1043"


def test_node_gets_an_answer(server: Server, tmp_path: Path) -> None:
    need("node")
    program = tmp_path / "helpdesk.mjs"
    program.write_text(snippet("js", server.port))
    assert run("node", str(program), token=server.api.key()).startswith("apply [")
