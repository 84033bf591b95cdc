"""``docker-compose.yml`` as Compose would read it, for tests that check it and run its lines."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"
ENV_EXAMPLE = ROOT / ".env.example"


class VariableMissing(Exception):
    """The file insists on a variable that ``.env`` does not set."""


def raw() -> dict[str, Any]:
    """The file with its anchors resolved and its variables as they stand."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file with the variables of ``environ`` filled in."""
    filled: dict[str, Any] = _fill_all(raw(), environ)
    return filled


def read_env(text: str) -> dict[str, str]:
    """The variables of an ``.env`` file."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def fill(text: str, environ: Mapping[str, str]) -> str:
    """The text with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?reason}`` filled in, and ``$$`` made ``$``."""
    out, i = [], 0
    while i < len(text):
        if text.startswith("$$", i):
            out.append("$")
            i += 2
        elif text.startswith("${", i):
            end = _closing(text, i + 2)
            out.append(_value(text[i + 2 : end], environ))
            i = end + 1
        else:
            out.append(text[i])
            i += 1
    return "".join(out)


def _closing(text: str, start: int) -> int:
    depth = 1
    for i in range(start, len(text)):
        depth += text.startswith("${", i)
        depth -= text[i] == "}"
        if not depth:
            return i
    raise ValueError(f"unbalanced: {text}")


def _value(inside: str, environ: Mapping[str, str]) -> str:
    match = re.fullmatch(r"(\w+)(?:(:[-?])(.*))?", inside, re.DOTALL)
    assert match, inside
    name, how, rest = match.groups()
    if value := environ.get(name):
        return value
    if how == ":?":
        raise VariableMissing(f"{name}: {rest}")
    return fill(rest, environ) if how else ""


def _fill_all(value: Any, environ: Mapping[str, str]) -> Any:
    match value:
        case str():
            return fill(value, environ)
        case list():
            return [_fill_all(v, environ) for v in value]
        case dict():
            return {k: _fill_all(v, environ) for k, v in value.items()}
        case _:
            return value
