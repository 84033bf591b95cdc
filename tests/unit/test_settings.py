"""Settings come from a file and the environment, and every problem is reported at once with its remedy."""

from pathlib import Path

import pytest

from tagging.errors import SettingsError
from tagging.settings import Loaded, load, masked
from tagging.urls import mask_url


def loaded(folder: Path, toml: str = "", **environ: str) -> Loaded:
    (folder / "app.toml").write_text(toml)
    return load(environ=environ, config_dir=folder)


def problems(folder: Path, toml: str = "", **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        loaded(folder, toml, **environ)
    return error.value.problems


def test_nothing_given_is_enough(tmp_path: Path) -> None:
    settings = loaded(tmp_path).settings
    assert settings.model.name == "demo"
    assert settings.prefetch == 3 * settings.batching.max_messages


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    found = loaded(
        tmp_path, '[model]\nname = "from file"\ndevice = "cpu"', TAGMILL_MODEL__NAME="from environment", PATH="/bin"
    )
    assert (found.settings.model.name, found.settings.model.device) == ("from environment", "cpu")
    assert found.origins["model.name"] == "TAGMILL_MODEL__NAME"
    assert found.origins["model.device"] == str(tmp_path / "app.toml")
    assert found.origins["model.precision"] == "default"


def test_every_problem_is_told_at_once_and_where_it_is(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        "stray = 1\n[batching]\nmax_messages = 0\nspeed = 9",
        TAGMILL_RETRIES__MAX_ATTEMPTS="many",
        TAGMILL_MODEL__COLOUR="red",
    )
    text = "\n".join(told)
    assert len(told) == 5
    assert "'stray' stands outside a section" in text
    assert "batching.max_messages: expected 1 or more" in text
    assert "batching.speed: there is no such setting" in text
    assert "(in TAGMILL_RETRIES__MAX_ATTEMPTS)" in text
    assert "TAGMILL_MODEL__COLOUR: there is no setting model.colour" in text


def test_what_is_wrong_together_is_told_beside_what_is_wrong_by_itself(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        TAGMILL_RETRIES__MAX_ATTEMPTS="many",
        TAGMILL_LABELS__SUGGEST_AT="0.9",
        TAGMILL_BROKER__PREFETCH="16",
    )
    assert [problem.partition(" ")[0] for problem in told] == [
        "retries.max_attempts:",
        "broker.prefetch",
        "labels.suggest_at",
    ]


def test_nothing_is_guessed_about_a_setting_that_is_wrong_by_itself(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, TAGMILL_BROKER__PREFETCH="16", TAGMILL_BATCHING__MAX_MESSAGES="eight")
    assert told == "batching.max_messages: expected a whole number (in TAGMILL_BATCHING__MAX_MESSAGES)"


@pytest.mark.parametrize(
    ("toml", "environ", "problem"),
    [
        (
            "[batching]\nmax_mesages = 8",
            {},
            "batching.max_mesages: there is no such setting; did you mean batching.max_mes",
        ),
        ("[bathcing]\nmax_messages = 8", {}, "bathcing: there is no such setting; did you mean batching?"),
        ("", {"TAGMILL_BROKR__URL": "x"}, "there is no setting brokr.url; did you mean TAGMILL_BROKER__URL"),
        ("", {"TAGMILL_BROKER_URL": "x"}, "two underscores end the section's name: TAGMILL_BROKER__URL"),
        ("", {"TAGMILL_ZZZ__QQQ": "x"}, "there is no setting zzz.qqq; `tagmill config show` lists them"),
    ],
    ids=["field", "section", "variable", "underscore", "nothing like it"],
)
def test_a_misspelt_name_comes_with_those_it_is_near_to(
    tmp_path: Path, toml: str, environ: dict[str, str], problem: str
) -> None:
    (told,) = problems(tmp_path, toml, **environ)
    assert problem in told


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"TAGMILL_BROKER__PREFETCH": "16"}, "broker.prefetch is 16 but batching.max_messages is 64"),
        (
            {"TAGMILL_BROKER__VISIBILITY_TIMEOUT_S": "30"},
            "broker.visibility_timeout_s is 30 but a stopping worker holds its messages for 25 s more",
        ),
        ({"TAGMILL_BROKER__URL": "kafka://x"}, "broker.url: kafka is no broker that we know"),
        ({"TAGMILL_BROKER__URL": "redis://a;redis://b"}, "broker.url: two Redis servers hold two different queues"),
        ({"TAGMILL_BROKER__URL": "amqp://a;amqps://b"}, "broker.url: amqp and amqps together"),
        ({"TAGMILL_BROKER__URL": "sentinel://a;sentinel://b"}, "broker.sentinel_master: name the master"),
        ({"TAGMILL_BROKER__SENTINEL_MASTER": "m"}, "broker.sentinel_master: name the master"),
        ({"TAGMILL_RESULTS__URL": "sentinel://a"}, "results.url: Sentinel is for broker.url"),
        ({"TAGMILL_CACHE__URL": "sentinel://a"}, "cache.url: use redis://"),
        (
            {"TAGMILL_BROKER__TLS_SERVER_NAME": "x"},
            "broker.tls_server_name is for amqps://, but broker.url is redis://",
        ),
        ({"TAGMILL_BROKER__URL": "amqps://x?ssl_cert_reqs=none"}, "broker.url: amqps:// takes no ssl_ options"),
        ({"TAGMILL_BROKER__URL": "amqps://a;amqps://b"}, "broker.tls_server_name: set it to a name that"),
        (
            {"TAGMILL_BROKER__URL": "amqps://x", "TAGMILL_BROKER__TLS_CA_FILE": "/no/such.crt"},
            "broker.tls_ca_file: there is no file /no/such.crt",
        ),
        ({"TAGMILL_CACHE__URL": "memcached://x"}, "cache.url: use redis://"),
        ({"TAGMILL_METRICS__PORT": "5555"}, "metrics.port and flower.port are both 5555"),
        ({"TAGMILL_LEDGER__URL": "mysql://x"}, "ledger.url: use sqlite:///file or postgresql://"),
        ({"TAGMILL_LABELS__SUGGEST_AT": "0.9"}, "labels.suggest_at 0.9 is above labels.apply_at 0.5"),
        ({"TAGMILL_RETRIES__BACKOFF_S": "99"}, "retries.backoff_s 99.0 is above retries.backoff_max_s 60.0"),
        (
            {"TAGMILL_MODEL__DEVICE": "cpu", "TAGMILL_MODEL__MAX_MEMORY_MB": "4096"},
            "model.max_memory_mb is 4096, which is for GPUs",
        ),
        (
            {"TAGMILL_MODEL__DEVICE": "cpu", "TAGMILL_MODEL__OFFLOAD": "layers"},
            "model.offload is layers, which is for GPUs",
        ),
        ({"TAGMILL_INTAKE__SWEEP_AFTER_S": "300"}, "the broker itself may bring a message back after 325 s"),
        (
            {"TAGMILL_BROKER__URL": "amqp://x", "TAGMILL_INTAKE__SWEEP_AFTER_S": "60"},
            "the broker itself may bring a message back after 265 s",
        ),
        ({"TAGMILL_WRITEBACK__BACKOFF_S": "900"}, "writeback.backoff_s 900 is above writeback.backoff_max_s 600"),
        ({"TAGMILL_INTAKE__BACKOFF_S": "60"}, "intake.backoff_s 60 is above intake.backoff_max_s 30"),
        ({"TAGMILL_BROKER__ALLOW_UNSAFE": '["fsync"]'}, "broker.allow_unsafe.0: expected 'eviction', 'no-aof' or"),
    ],
)
def test_settings_that_are_wrong_together_are_refused(tmp_path: Path, environ: dict[str, str], problem: str) -> None:
    (told,) = problems(tmp_path, **environ)
    assert problem in told


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, "[model")
    assert told.startswith(f"{tmp_path / 'app.toml'}: ")


def test_secrets_are_masked(tmp_path: Path) -> None:
    settings = loaded(tmp_path, TAGMILL_CACHE__PEPPER="secret").settings
    assert masked(settings.cache.pepper) == "********"
    assert "secret" not in repr(settings)
    assert masked("redis://user:secret@host:6379/0") == "redis://user:********@host:6379/0"
    assert mask_url("redis://host/0") == "redis://host/0"
    assert mask_url("amqp://u:secret@a;amqp://u:secret@b//") == "amqp://u:********@a;amqp://u:********@b//"


@pytest.mark.parametrize("url", ["amqp://a;amqp://b:5673//", "sentinel://a:1;sentinel://b:2/3"])
def test_a_broker_may_have_several_hosts(tmp_path: Path, url: str) -> None:
    master = {"TAGMILL_BROKER__SENTINEL_MASTER": "m"} if url.startswith("sentinel") else {}
    settings = loaded(tmp_path, TAGMILL_BROKER__URL=url, **master).settings
    assert (settings.uses_redis_broker, settings.uses_sentinel) == (bool(master), bool(master))
