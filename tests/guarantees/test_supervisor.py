"""A worker that is killed comes back on its device, the others go on, and none outlives its supervisor."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.broker.fixtures import ManyDatabases
from tests.broker.sites import ANSWER_S, Broker, Site
from tests.broker.supervised import is_running, on_cpu, supervised
from tests.commands import Tagmill
from tests.processes import events_in
from tests.servers import server_folder, wait_until

TWO_CARDS = "GPU 0: NVIDIA A10 (UUID: GPU-aaaa)\nGPU 1: NVIDIA A10 (UUID: GPU-bbbb)\n"


@pytest.fixture
def site(many_databases: ManyDatabases) -> Iterator[Site]:
    """A site on Redis: no broker takes part in what is shown here."""
    with server_folder("site") as folder:
        site = Broker.on(many_databases, None).site(folder)
        yield site
        site.close()


def send(site: Site, n: int) -> list[str]:
    return [site.send().id for _ in range(n)]


def done(site: Site, ids: list[str]) -> int:
    return site.states(ids).count("SUCCESS")


def test_a_killed_worker_comes_back_under_another_name_while_the_other_goes_on(own_site: Site) -> None:
    # On RabbitMQ the name matters: it would be refused the control queue that the dead one's connection still holds.
    site = own_site
    with on_cpu(site, 2, {"TAGMILL_BROKER__VISIBILITY_TIMEOUT_S": "10", "TAGMILL_MODEL__TIMEOUT_S": "1",
                          "TAGMILL_BATCHING__DRAIN_S": "5"}) as supervisor:  # fmt: skip
        supervisor.wait_until_consuming(2)
        killed, other = supervisor.pids()
        ids = send(site, 80)
        wait_until("some are answered", lambda: done(site, ids) >= 16, timeout_s=ANSWER_S)
        os.kill(killed, signal.SIGKILL)
        wait_until("all are answered", lambda: done(site, ids) == 80, timeout_s=90)
        supervisor.wait_until_consuming(3)
        assert other in supervisor.pids()
        assert killed not in supervisor.pids()
        assert len(supervisor.pids()) == 2
        nodes = [event["node"] for event in supervisor.events("child.started")]
        assert len(set(nodes)) == 3
        (crash,) = supervisor.events("child.crashed")
        assert crash["cause"] == "SIGKILL"


def test_sigterm_drains_every_worker_and_ends_with_0(site: Site) -> None:
    with on_cpu(site, 2) as supervisor:
        supervisor.wait_until_consuming(2)
        pids = supervisor.pids()
        ids = send(site, 200)
        wait_until("some are answered", lambda: done(site, ids) >= 16, timeout_s=ANSWER_S)
        supervisor.process.terminate()
        assert supervisor.ended() == 0
        assert not [pid for pid in pids if is_running(pid)]
        assert done(site, ids) + site.queued() == 200
        assert [event["how"] for event in supervisor.events("child.ended")] == ["exit code 0"] * 2


def test_sigquit_hands_back_and_says_so(site: Site) -> None:
    with on_cpu(site, 1) as supervisor:
        supervisor.wait_until_consuming(1)
        ids = send(site, 100)
        wait_until("some are answered", lambda: done(site, ids) >= 8, timeout_s=ANSWER_S)
        supervisor.process.send_signal(signal.SIGQUIT)
        assert supervisor.ended() == 70
        assert [event["how"] for event in supervisor.events("child.ended")] == ["exit code 70"]
        assert done(site, ids) < 100
        assert done(site, ids) + site.queued() >= 100


def test_a_killed_supervisor_leaves_nobody_behind(site: Site) -> None:
    with on_cpu(site, 2) as supervisor:
        supervisor.wait_until_consuming(2)
        family = psutil.Process(supervisor.process.pid).children(recursive=True)
        ids = send(site, 40)
        wait_until("some are answered", lambda: done(site, ids) >= 8, timeout_s=ANSWER_S)
        supervisor.process.kill()
        wait_until("its children are gone", lambda: not any(is_running(p.pid) for p in family), timeout_s=60)
        assert done(site, ids) + site.queued() == 40


def test_a_worker_that_crashes_again_and_again_ends_the_whole(site: Site) -> None:
    with on_cpu(site, 2, {"TAGMILL_WORKER__MAX_CRASHES": "2"}) as supervisor:
        supervisor.wait_until_consuming(2)
        unlucky = supervisor.events("child.started")[0]["node"].rpartition("-")[0]
        for n in (1, 2):
            started = [event for event in supervisor.events("child.started") if event["node"].startswith(unlucky)]
            os.kill(int(started[-1]["pid"]), signal.SIGKILL)
            if n == 1:
                wait_until("it is started again", lambda: len(supervisor.events("child.started")) == 3)
        assert supervisor.ended() == 70
        (gave_up,) = supervisor.events("supervisor.gives_up")
        assert (gave_up["node"], gave_up["crashes"], gave_up["last"]) == (unlucky, "2", "SIGKILL")


def test_a_refused_model_ends_it_without_a_second_try(site: Site) -> None:
    with on_cpu(site, 1, {"TAGMILL_MODEL__NAME": "gpt"}) as supervisor:
        assert supervisor.ended() == 1
        assert len(supervisor.events("child.started")) == 1
        assert "ModelRefused: no model 'gpt'" in supervisor.text


def test_each_gpu_has_a_worker_that_sees_it_alone(site: Site, tmp_path: Path) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\ncat <<END\n{TWO_CARDS}END\n")
    driver.chmod(0o755)
    with supervised(site, "--devices", "all", PATH=f"{tmp_path}:{os.environ['PATH']}") as supervisor:
        supervisor.wait_until_consuming(2)
        environs = [psutil.Process(pid).environ() for pid in supervisor.pids()]
        assert [environ["CUDA_VISIBLE_DEVICES"] for environ in environs] == ["GPU-aaaa", "GPU-bbbb"]
        nodes = [event["node"] for event in supervisor.events("worker.consuming")]
        assert sorted(node.split("-")[1] for node in nodes) == ["gpu0", "gpu1"]


# Refusals


@pytest.mark.parametrize("options", [("-P", "prefork"), ("--pool=solo",), ("-c4",), ("--autoscale", "3,1")])
@pytest.mark.parametrize("devices", [(), ("--devices", "cpu")], ids=["one", "supervised"])
def test_a_pool_of_somebody_else_is_refused_before_anything_is_loaded(
    site: Site, devices: tuple[str, ...], options: tuple[str, ...]
) -> None:
    ran = Tagmill(site.folder, {**site.environ, "TAGMILL_MODEL__NAME": "gpt"})("worker", *devices, *options)
    assert ran.code == 2
    assert "CUDA" in ran.err
    assert "--workers-per-device" in ran.err
    assert "gpt" not in ran.err


@pytest.mark.parametrize("option", ["--pool=solo", "--concurrency=4"])
def test_plain_celery_is_refused_it_too(site: Site, option: str) -> None:
    worker = site.worker()
    worker.command = [*worker.command, option]
    ran = subprocess.run(
        worker.command, env={**os.environ, **site.environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    (refused,) = events_in(ran.stderr, "worker.refused")
    assert "CUDA" in refused["hint"]


def test_a_name_is_for_one_worker(site: Site) -> None:
    assert Tagmill(site.folder, site.environ)("worker", "--devices", "cpu", "-n", "me@here").code == 2


def test_a_gpu_that_is_not_there_is_refused(site: Site) -> None:
    ran = Tagmill(site.folder, {**site.environ, "PATH": "/nowhere"})("worker", "--devices", "3")
    assert ran.code == 2
    assert "no GPU can be seen here" in ran.err
