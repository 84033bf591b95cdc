"""The models that `config/models.toml` names, and where each one's checkpoint lies."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tagging.errors import ModelRefused
from workers.engines.checkpoint import SHORTEST

MODELS_TOML = Path(__file__).resolve().parents[2] / "config" / "models.toml"
DEMO = "demo"
DEMO_MODEL = Path(__file__).resolve().parent / "demo_model"

Column = Annotated[int, Field(ge=0, le=2)]


class Example(NamedTuple):
    text: str
    label: str


class SelfTest(BaseModel):
    """What a model must get right before it serves: a label that fits a text, and one that does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entailed: Example
    contradicted: Example


class Entry(BaseModel):
    """One model of the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None
    revision: str = "master"
    family: Literal["nli"] = "nli"
    entailment: Column = 0
    contradiction: Column = 2
    template: str = "{}"
    max_length: int = Field(default=512, ge=SHORTEST)
    licence: str = ""
    note: str = ""
    self_test: SelfTest

    @model_validator(mode="after")
    def _check(self) -> Entry:
        if self.entailment == self.contradiction:
            raise ValueError("entailment and contradiction name the same column")
        if self.template.count("{}") != 1:
            raise ValueError(f"template is {self.template!r}, expected one '{{}}' in a text")
        return self


# For a checkpoint given by its directory: the format's own columns, and the template it names, or the bare label.
UNLISTED = Entry(
    self_test=SelfTest(
        entailed=Example("我的快递三天了还没有送到，物流信息也不更新", "物流"),
        contradicted=Example("我的快递三天了还没有送到，物流信息也不更新", "登录"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A model and the directory to read it from."""

    name: str
    directory: Path
    entry: Entry


def cache_root() -> Path:
    """Where fetched and converted models are kept unless settings say otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagmill"


def load_catalogue(path: Path = MODELS_TOML) -> dict[str, Entry]:
    """Every entry of the file, by name.

    Raises:
        ModelRefused: The file is missing or wrong; each mistake is named with its key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, Entry]).validate_python(content)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelRefused(f"{path}: unreadable ({error}).") from error
    except ValidationError as error:
        told = "\n    ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelRefused(f"{path}:\n    {told}") from error


def resolve(model: str, *, catalogue: Mapping[str, Entry], models_dir: Path) -> Resolved:
    """The checkpoint of a catalogue name, or of a directory given by its path.

    Raises:
        ModelRefused: The name is unknown, or the model has not been fetched.
    """
    entry = catalogue.get(model)
    if entry is None:
        return _resolve_directory(model, known=catalogue)
    directory = DEMO_MODEL if entry.source is None and model == DEMO else models_dir / model
    if not directory.is_dir():
        remedy = f"Run: tagmill models fetch {model}" if entry.source else "Install the package again."
        raise ModelRefused(f"model {model!r} is not on this machine ({directory}). {remedy}")
    return Resolved(name=model, directory=directory, entry=entry)


def _resolve_directory(model: str, *, known: Mapping[str, Entry]) -> Resolved:
    directory = Path(model).expanduser()
    if not directory.is_dir():
        raise ModelRefused(
            f"no model {model!r}, nor such a directory; the catalogue knows: {', '.join(sorted(known))}."
        )
    directory = directory.resolve()
    return Resolved(name=directory.name, directory=directory, entry=UNLISTED)
