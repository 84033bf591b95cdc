"""A broker that would lose messages, or a model that fails an obvious pair, is refused with the remedy."""

import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import redis
from kombu import Connection, Exchange, Queue
from safetensors.torch import load_file, save_file

from tagging.settings import load
from tests.commands import ROOT, Tagmill
from tests.servers import RabbitServer, RedisServer, launched

DEMO = ROOT / "workers" / "engines" / "demo_model"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with launched(RedisServer) as server:
        yield server


@pytest.fixture(scope="module")
def environ(server):
    return {f"TAGMILL_{part}__URL": server.url for part in ("BROKER", "RESULTS", "CACHE")}


@pytest.fixture
def configured(server) -> Iterator[redis.Redis]:
    """A client of the server, whose configuration and users are as before once the test is over."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        before = client.config_get("maxmemory-policy", "appendonly")
        yield client
        for name, value in before.items():
            client.config_set(name, value)
        client.acl_deluser("narrow")


def refused(environ: Mapping[str, str], tmp_path: Path) -> tuple[str, ...]:
    """What a worker and a check say who do not start on this broker."""
    tagmill = Tagmill(tmp_path, {**environ, "TAGMILL_MODEL__NAME": "fake"})
    started, checked = tagmill("worker"), tagmill("check", "--no-model", "--json")
    assert (started.code, checked.code) == (1, 3)
    assert "Traceback" not in started.err
    return started.err, next(row["text"] for row in checked.rows if row["name"] == "broker")


def test_a_redis_that_evicts_queued_messages_is_refused(environ, tmp_path, configured):
    configured.config_set("maxmemory-policy", "allkeys-lru")
    for said in refused(environ, tmp_path):
        assert "maxmemory-policy allkeys-lru evicts queued messages; expected noeviction" in said
        assert "CONFIG SET maxmemory-policy noeviction" in said
        assert 'broker.allow_unsafe = ["eviction"]' in said


def test_a_redis_without_an_append_only_file_is_refused(environ, tmp_path, configured):
    configured.config_set("appendonly", "no")
    for said in refused(environ, tmp_path):
        assert "loses what is queued; expected appendonly yes" in said
        assert "CONFIG SET appendonly yes" in said


def test_every_reason_is_given_at_once_and_what_is_allowed_is_none(environ, tmp_path, configured):
    configured.config_set("appendonly", "no")
    configured.config_set("maxmemory-policy", "allkeys-lru")
    assert all("evicts" in said and "append-only" in said for said in refused(environ, tmp_path))
    half = {**environ, "TAGMILL_BROKER__ALLOW_UNSAFE": '["no-aof"]'}
    assert not any("expected appendonly yes" in said for said in refused(half, tmp_path))
    allowed = {**environ, "TAGMILL_BROKER__ALLOW_UNSAFE": '["no-aof", "eviction"]'}
    checked = Tagmill(tmp_path, allowed)("check", "--no-model", "--json")
    assert checked.code == 0
    assert "allowed to be unsafe: no-aof, eviction" in checked.out


def test_a_user_who_may_not_fetch_is_refused(environ, tmp_path, configured):
    configured.acl_setuser(
        "narrow", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-blmove", "-eval"], channels=["*"]
    )
    narrow = {**environ, "TAGMILL_BROKER__URL": environ["TAGMILL_BROKER__URL"].replace("//", "//narrow:any@")}
    for said in refused(narrow, tmp_path):
        assert "EVAL, BLMOVE refused to this user" in said
        assert "ACL SETUSER" in said
        assert ":any@" not in said


def test_looking_changes_nothing_in_the_queue(environ, tmp_path, configured):
    configured.rpush("tag.tickets", "newer", "older")
    assert Tagmill(tmp_path, environ)("check", "--no-model").code == 0
    assert configured.lrange("tag.tickets", 0, -1) == ["newer", "older"]
    configured.delete("tag.tickets")


def test_a_classic_queue_of_rabbitmq_is_refused_and_can_be_allowed(environ, tmp_path, rabbit_server: RabbitServer):
    rabbit_server.control("add_vhost", "classic")
    rabbit_server.control("set_permissions", "-p", "classic", "guest", ".*", ".*", ".*")
    url = f"{rabbit_server.url.removesuffix('//')}/classic"
    with Connection(url) as connection, connection.channel() as channel:
        Queue("tag.tickets", Exchange("tag", type="topic"), routing_key="tag.tickets")(channel).declare()
    rabbit = {**environ, "TAGMILL_BROKER__URL": url}
    for said in refused(rabbit, tmp_path):
        assert "tag.tickets exists and is declared otherwise" in said
        assert "rabbitmqctl delete_queue tag.tickets" in said
    allowed = {**rabbit, "TAGMILL_BROKER__ALLOW_UNSAFE": '["classic-queue"]'}
    assert Tagmill(tmp_path, allowed)("check", "--no-model").code == 0


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_broker_out_of_reach_ends_a_worker_with_exit_code_3(environ, tmp_path, url):
    nowhere = {**environ, "TAGMILL_BROKER__URL": url, "TAGMILL_MODEL__NAME": "fake"}
    started = Tagmill(tmp_path, nowhere)("worker")
    assert started.code == 3
    assert started.err.startswith("broker: ")
    assert "cannot be reached" in started.err


def test_a_shared_cache_without_a_pepper_is_pointed_out(environ):
    elsewhere = {**environ, "TAGMILL_CACHE__URL": "redis://cache.internal:6379/1"}
    assert load(environ=elsewhere).settings.cache_can_be_guessed
    assert not load(environ={**elsewhere, "TAGMILL_CACHE__PEPPER": "salt"}).settings.cache_can_be_guessed
    assert not load(environ=environ).settings.cache_can_be_guessed


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
