"""``docker-compose.yml``, the Dockerfile and the systemd unit: well-formed, closed, and about settings that exist."""

import configparser
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tagging.settings import CONFIG_DIR_VARIABLE, Settings, leaves, load
from tests.compose import ENV_EXAMPLE, ROOT, VariableMissing, fill, raw, read, read_env
from workers.exits import REFUSALS

SECRETS = {"REDIS_PASSWORD": "r3dis", "TAGMILL_FLOWER__PASSWORD": "fl0wer"}
SERVICES: dict[str, dict[str, Any]] = read(SECRETS)["services"]
OURS = ("worker", "worker-gpu", "relay", "writeback", "flower", "http")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
UNIT = ROOT / "deploy" / "systemd" / "tagmill-worker.service"

every_service = pytest.mark.parametrize("name", SERVICES)
our_service = pytest.mark.parametrize("name", OURS)


def published_schema() -> dict[str, Any]:
    """The compose specification's schema, as check-jsonschema bundles it."""
    path = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def variables(text: str) -> set[str]:
    return set(re.findall(r"TAGMILL_\w+__\w+", text))


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def test_is_valid_by_the_compose_specification() -> None:
    jsonschema.Draft202012Validator(published_schema()).validate(raw())


def test_a_misspelt_key_would_be_noticed() -> None:
    wrong = raw()
    wrong["services"]["worker-gpu"]["shmsize"] = "1gb"
    with pytest.raises(jsonschema.ValidationError, match="shmsize"):
        jsonschema.Draft202012Validator(published_schema()).validate(wrong)


@every_service
def test_publishes_on_the_loopback_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode") is None


@every_service
def test_runs_as_nobody_in_particular_and_can_change_nothing(name: str) -> None:
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@every_service
def test_pins_its_image(name: str) -> None:
    assert re.fullmatch(r"[\w/-]+:\d+(\.\d+){1,2}(-\w+)?", SERVICES[name]["image"])


@every_service
def test_is_watched_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@every_service
def test_no_password_stands_in_a_command_line(name: str) -> None:
    told = json.dumps([SERVICES[name].get("command"), SERVICES[name]["healthcheck"]["test"]])
    assert not any(secret in told for secret in SECRETS.values())


@our_service
def test_every_variable_is_a_setting_with_a_value_that_is_accepted(name: str) -> None:
    environ = {k: str(v) for k, v in SERVICES[name]["environment"].items()}
    loaded = load(environ=environ, config_dir=ROOT / "config")
    assert set(environ) == {origin for origin in loaded.origins.values() if origin in environ}


@pytest.mark.parametrize("path", [".env.example", "deploy/Dockerfile", "docker-compose.yml", "deploy/systemd"])
def test_every_variable_that_is_mentioned_is_a_setting(path: str) -> None:
    found = ROOT / path
    text = "".join(p.read_text() for p in found.iterdir()) if found.is_dir() else found.read_text()
    known = {f"TAGMILL_{name.replace('.', '__').upper()}" for name, _ in leaves(Settings())}
    assert variables(text) <= known
    assert set(re.findall(r"\bTAGMILL_CONFIG\w+", text)) <= {CONFIG_DIR_VARIABLE}


def test_a_worker_has_time_to_drain() -> None:
    for name in ("worker", "worker-gpu"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > Settings().stop_s


def test_the_two_workers_differ_in_the_device_only() -> None:
    cpu, gpu = SERVICES["worker"], SERVICES["worker-gpu"]
    for key in ("healthcheck", "volumes", "stop_grace_period"):
        assert cpu[key] == gpu[key]
    devices = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert gpu["shm_size"]
    assert gpu["command"] == ["tagmill", "worker", "--devices", "all"]
    # The supervisor tells each of its workers which card is its own.
    assert "TAGMILL_MODEL__DEVICE" not in gpu["environment"]


@pytest.mark.parametrize("missing", SECRETS)
def test_refuses_to_start_without_its_passwords(missing: str) -> None:
    with pytest.raises(VariableMissing, match=missing):
        read({name: value for name, value in SECRETS.items() if name != missing})


def test_the_example_names_every_variable() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^#?(\w+)=", ENV_EXAMPLE.read_text(), re.MULTILINE))
    assert offered == asked


def test_the_example_holds_no_password() -> None:
    assert all(not value for value in read_env(ENV_EXAMPLE.read_text()).values())


def test_fills_variables_in_as_compose_does() -> None:
    assert fill("${A:-x${B}y}/${B}/$$C", {"B": "b"}) == "xby/b/$C"
    assert fill("${A:-x${B}y}", {"A": "a", "B": "b"}) == "a"


def test_every_image_runs_as_the_same_user_as_compose_says() -> None:
    stages = dict(re.findall(r"^FROM base AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    for name in OURS:
        stage = stages[SERVICES[name]["build"]["target"]]
        assert f"USER {SERVICES[name]['user']}\n" in stage


def test_the_worker_images_are_watched_as_compose_does() -> None:
    checks = re.findall(r"HEALTHCHECK .*?\\\n +CMD (.*)", DOCKERFILE)
    kind, line = SERVICES["worker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    assert checks == [line, line]
    for name in ("worker", "worker-gpu"):
        assert DOCKERFILE.count(f"CMD {json.dumps(SERVICES[name]['command'])}") == 1


def test_what_the_images_copy_goes_into_the_build() -> None:
    let_in = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    packages = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()} - {"tests"}
    assert packages | {"config", "pyproject.toml", "constraints.txt"} <= set(let_in)
    assert "tests" not in let_in
    assert not [name for name in let_in if name.startswith(".env")]


def test_the_systemd_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/tagmill/bin/tagmill", "/bin/true"))
    told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_the_systemd_unit_lets_a_worker_drain() -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way to keep capitals
    parser.read(UNIT)
    service = parser["Service"]
    assert int(service["TimeoutStopSec"]) > Settings().stop_s
    assert service["KillMode"] == "mixed"
    assert service["User"] == "tagmill"


def test_the_systemd_unit_does_not_repeat_what_is_refused() -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)[0].split()} == set(
        REFUSALS
    )
