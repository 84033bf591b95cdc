"""What a worker answers, as it stands in the results backend, the ledger and on the command line."""

from typing import Any, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from tagging.long_text import Rule

Decision = Literal["apply", "suggest", "abstain"]
CacheTier = Literal["none", "local", "shared", "ledger", "pairs"]


class Tag(TypedDict):
    """A label that scored high enough."""

    label: str
    score: float
    decision: Literal["apply", "suggest"]


class AnsweringModel(TypedDict):
    """Which model answered."""

    name: str
    revision: str
    fingerprint: str
    precision: str


class Answer(TypedDict):
    """The result of `tagmill.tag_ticket` and `tagmill.tag_comment`, and one item of `tagmill.tag_many`'s."""

    schema_version: str
    id: str
    kind: str
    source: str
    ref: str
    revision: int
    decision: Decision
    tags: list[Tag]
    labels: list[str]
    scores: list[float]
    multi_label: bool
    template: str
    label_set: str | None
    label_set_digest: str
    model: AnsweringModel
    long_text: Rule
    windows: int | None
    truncated: bool | None
    cache: CacheTier
    queue_ms: float
    infer_ms: float
    device_ms: float
    batch_size: int
    tokens: int
    computed: int
    """Pairs that the model computed for this answer; the others were known."""


class ItemError(TypedDict):
    """What takes the place of an answer where an item of `tagmill.tag_many` could not be done."""

    error: str


class ManyAnswers(TypedDict):
    """The result of `tagmill.tag_many`: one entry for each item, in order."""

    schema_version: str
    id: str
    done: int
    failed: int
    answers: list[Answer | ItemError]


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each answer."""
    return {
        "answer": TypeAdapter(Answer).json_schema(),
        "answer of tagmill.tag_many": TypeAdapter(ManyAnswers).json_schema(),
    }
