"""Every command and health check of ``docker-compose.yml`` does here what it would do in its container."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.children import ROOT, background, need
from tests.compose import read
from tests.servers import HOST, PostgresServer, RabbitServer, free_port, wait_until

ENV = {"REDIS_PASSWORD": "r3dis", "TAGMILL_FLOWER__PASSWORD": "fl0wer", "TAGMILL_MODEL__NAME": "fake"}
SERVICES: dict[str, dict[str, Any]] = read(ENV)["services"]


@dataclass(frozen=True)
class Place:
    """Where the containers' addresses and folders lie on this machine."""

    folder: Path
    swaps: Mapping[str, str]

    def here(self, text: str) -> str:
        for there, here in self.swaps.items():
            text = text.replace(there, here)
        return text

    def environ(self, service: str) -> dict[str, str]:
        """The service's environment, as a container adds to it what the image and Docker set."""
        given = {k: self.here(str(v)) for k, v in SERVICES[service].get("environment", {}).items()}
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**given, "PATH": path, "HOSTNAME": socket.gethostname(), "PYTHONPATH": str(ROOT)}

    def command(self, service: str) -> list[str]:
        return [self.here(word) for word in SERVICES[service]["command"]]

    def health(self, service: str) -> subprocess.CompletedProcess[str]:
        """The outcome of the service's health check."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        words = [self.here(word) for word in words]
        line = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        timeout_s = float(SERVICES[service]["healthcheck"]["timeout"].removesuffix("s"))
        return subprocess.run(
            line,
            env=self.environ(service),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=2 * timeout_s,  # these cores are shared
            check=False,
        )

    def is_healthy(self, service: str) -> Callable[[], bool]:
        return lambda: self.health(service).returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    need("redis-server", "redis-cli")
    folder = tmp_path_factory.mktemp("place")
    for name in ("data", "models", "bin"):
        (folder / name).mkdir()
    # What pip would install in the image.
    script = folder / "bin" / "tagmill"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m tagmill "$@"\n')
    script.chmod(0o755)
    port, flower_port, http_port = str(free_port()), str(free_port()), str(free_port())
    swaps = {
        "redis:6379": f"{HOST}:{port}",
        "port 6379": f"port {port}",
        "redis-cli ": f"redis-cli -p {port} ",
        "dir /data": f"dir {folder / 'data'}",
        "/data/": f"{folder / 'data'}/",
        "/models": str(folder / "models"),
        "5555": flower_port,
        "8780": http_port,
    }
    return Place(folder, swaps)


@pytest.fixture(scope="module")
def up(place: Place) -> Iterator[Place]:
    """Each service that is up by default, and the HTTP API: started by its own line, waited for by its own check."""
    with ExitStack() as stack:
        for service in ("redis", "relay", "worker", "flower", "http"):
            log = place.folder / f"{service}.log"
            process = stack.enter_context(background(place.command(service), environ=place.environ(service), log=log))
            try:
                wait_until(f"{service} is healthy", place.is_healthy(service), timeout_s=60, every_s=0.3)
            except TimeoutError as e:
                raise AssertionError(log.read_text()) from e
            stack.callback(_ended_well, process, log)
        yield place


def _ended_well(process: subprocess.Popen[bytes], log: Path) -> None:
    """Runs before the process is told to stop, so it says what a container's stop would: SIGTERM ends it with 0."""
    process.terminate()
    assert process.wait(60) == 0, log.read_text(errors="replace")


def test_redis_asks_for_its_password_and_keeps_what_it_has(up: Place) -> None:
    host, _, port = up.swaps["redis:6379"].partition(":")
    with redis.Redis(host, int(port)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis(host, int(port), password=ENV["REDIS_PASSWORD"], decode_responses=True) as client:
        kept = {
            name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy", "save")
        }
    assert kept == {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}


def test_a_text_goes_through(up: Place) -> None:
    done = subprocess.run(
        ["tagmill", "enqueue", "where is my parcel", "-l", "delivery,login", "--wait", "30", "--json"],
        env={**os.environ, **up.environ("flower")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"scores"' in done.stdout
    assert (up.folder / "data" / "tagmill.db").is_file()


@pytest.mark.parametrize("service", ["redis", "relay", "worker", "flower", "http"])
def test_is_healthy_once_it_is_up(up: Place, service: str) -> None:
    outcome = up.health(service)
    assert outcome.returncode == 0, outcome.stderr


def test_another_worker_of_the_same_queue_does_not_answer_for_this_one(up: Place) -> None:
    environ = {**up.environ("worker"), "HOSTNAME": "elsewhere"}
    line = SERVICES["worker"]["healthcheck"]["test"][1]
    outcome = subprocess.run(["sh", "-c", line], env=environ, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert outcome.returncode != 0


@pytest.mark.parametrize("service", ["redis", "worker", "flower", "http"])
def test_is_not_healthy_when_it_is_down(place: Place, service: str) -> None:
    nobody = str(free_port())
    down = replace(
        place,
        swaps={
            **place.swaps,
            "redis:6379": f"{HOST}:{nobody}",
            "5555": nobody,
            "8780": nobody,
            "redis-cli ": f"redis-cli -p {nobody} ",
        },
    )
    assert down.health(service).returncode != 0


def test_rabbitmq_is_healthy_by_its_check(rabbit_server: RabbitServer) -> None:
    kind, *words = SERVICES["rabbitmq"]["healthcheck"]["test"]
    assert kind == "CMD"
    folders = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq*/sbin"))
    if not folders:
        pytest.skip("rabbitmq-diagnostics is not installed")
    # The distribution's own wrapper insists on the user rabbitmq.
    environ = {**os.environ, **rabbit_server.environment(), "PATH": f"{folders[-1]}:{os.environ['PATH']}"}
    outcome = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_postgres_is_healthy_by_its_check(postgres_server: PostgresServer) -> None:
    need("pg_isready")
    _, *words = SERVICES["postgres"]["healthcheck"]["test"]
    environ = {**os.environ, "PGHOST": HOST, "PGPORT": str(postgres_server.port)}
    assert subprocess.run(words, env=environ, timeout=30, check=False).returncode == 0
    environ["PGPORT"] = str(free_port())
    assert subprocess.run(words, env=environ, timeout=30, check=False).returncode != 0
