"""The message contract: what a task says on the wire, and what it has to be before a worker touches it.

A message is the single JSON object in a Celery task's arguments: ``args=[{...}]`` (the fields as keyword
arguments are understood too). ``decode`` turns it into a ``TagTask`` or says why it cannot be done. The JSON
Schema of these models is generated into ``docs/message-contract.md``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagging.documents import DEFAULT_KIND, DEFAULT_SOURCE, ERASED_ITEM
from tagging.errors import DocumentErased, InvalidMessage, UnsupportedVersion
from tagging.labels import LabelBook, LabelSet, Policy, check_labels
from tagging.long_text import DEFAULT_OVERLAP, TRUNCATE, LongText, Overlap, Rule
from tagging.names import KIND_OF_TASK, Kind
from tagging.text import clean

SCHEMA_VERSION: Final = "1.2"
MAX_TEXT_CHARS: Final = 20_000
MAX_LABELS: Final = 10
MAX_ITEMS: Final = 512

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.:/@-]+$")]
Ref = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Revision = Annotated[int, Field(ge=0, le=2**63 - 1)]


class WriteBack(BaseModel):
    """Where the tags go once they are stored, beside the ledger and the results backend."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    system: Name = Field(description="Name of an account in `config/accounts.toml`.")
    mode: Annotated[str, Field(pattern="^(apply|suggest)$")] = "apply"


class _Question(BaseModel):
    """What is asked of a text; an item of ``tag_many`` inherits what it leaves out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    source: Name | None = Field(None, description="The system that the text comes from, e.g. `zendesk`.")
    labels: list[str] | None = Field(
        None, description=f"1 to {MAX_LABELS} labels of 1 to 64 characters; or name a `label_set`."
    )
    label_set: Name | None = Field(None, description="Name of a label set that the worker knows.")
    multi_label: bool | None = Field(None, description="Score each label by itself. Default: false, or the set's.")
    template: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="Hypothesis with one `{}` for the label. Default: the label set's, then the model's."
    )
    long_text: Rule | None = Field(
        None,
        description="Of a text longer than the model reads: only what fits (`truncate`), or all of it in windows, of "
        "which the one that speaks most for a label counts (`max`) or the mean (`mean`). Default: the label set's.",
    )
    overlap: Overlap | None = Field(
        None, description=f"Tokens that neighbouring windows share. Default: the label set's, {DEFAULT_OVERLAP}."
    )
    model: Name | None = Field(None, description="Model to be asked; a worker that serves another one parks the task.")
    write_back: WriteBack | None = None
    relabel: bool | None = Field(
        None,
        description="Whether labels have changed since the same document was tagged: then what was computed for it and "
        "stands in the ledger is not computed again. Costs a look into the ledger.",
    )


class TagRequest(_Question):
    """The body of `tagmill.tag_ticket` and `tagmill.tag_comment`."""

    schema_version: str = Field(SCHEMA_VERSION, description="Version of this contract, `major.minor`.")
    text: str = Field(description=f"1 to {MAX_TEXT_CHARS:,} characters after cleaning.")
    id: Ref | None = Field(None, description="Id of this request. Default: the Celery task id.")
    kind: Kind | None = Field(None, description="Must agree with the task's name when given.")
    ref: Ref | None = Field(None, description="The ticket's or comment's id in its source. Default: `id`.")
    revision: Revision = Field(0, description="Grows with every edit; an older one never overwrites a newer one.")
    trace: dict[str, str] | None = Field(None, description="W3C trace context.")


class TagItem(_Question):
    """One text of a `tagmill.tag_many`."""

    text: str
    id: Ref | None = None
    kind: Kind | None = None
    ref: Ref | None = None
    revision: Revision = 0


class TagManyRequest(_Question):
    """The body of `tagmill.tag_many`: many texts in one message, for backfills."""

    schema_version: str = SCHEMA_VERSION
    id: Ref | None = None
    kind: Kind | None = None
    items: list[dict[str, Any]] = Field(
        description=f"1 to {MAX_ITEMS} objects like `TagItem`; one that is wrong gets an error of its own."
    )
    trace: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a deployment accepts."""

    max_labels: int = MAX_LABELS
    max_text_chars: int = MAX_TEXT_CHARS
    max_items: int = MAX_ITEMS


@dataclass(frozen=True, slots=True, kw_only=True)
class TagTask:
    """One text with all that was left out filled in; nothing about it can be wrong any more."""

    id: str
    kind: Kind
    source: str
    ref: str
    revision: int
    text: str
    labels: tuple[str, ...]
    label_set: str | None
    multi_label: bool
    template: str
    policy: Policy
    long_text: LongText = TRUNCATE
    write_back: WriteBack | None = None
    relabel: bool = False

    @property
    def hypotheses(self) -> tuple[str, ...]:
        """The template filled with each label, in their order."""
        return _fill(self.template, self.labels)


Item = TagTask | InvalidMessage

M = TypeVar("M", bound=BaseModel)
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})")
_MAJOR, _MINOR = (int(n) for n in SCHEMA_VERSION.split("."))
_MESSAGES: Final = {
    "missing": "missing",
    "extra_forbidden": "unknown field",
    "string_type": "expected a text",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Turns messages into tasks for one model and one set of limits."""

    book: LabelBook
    model: str
    default_template: str
    limits: Limits = field(default_factory=Limits)
    policy: Policy = field(default_factory=Policy)
    """For labels that come with the message; a label set brings its own."""

    def one(self, task_name: str, body: object, *, task_id: str) -> TagTask:
        """The task that a ``tag_ticket`` or ``tag_comment`` message asks for.

        Raises:
            InvalidMessage: What is wrong with the message, in words for the person who sent it.
        """
        request = _validate(TagRequest, body)
        kind = KIND_OF_TASK[task_name]
        if request.kind is not None and request.kind != kind:
            raise InvalidMessage(f"kind: {request.kind!r} was sent as {task_name}; the two must agree")
        return self._task(request, request, task_id=request.id or task_id, kind=kind)

    def many(self, body: object, *, task_id: str) -> list[Item]:
        """The items of a ``tag_many`` message, in order, each a task or what is wrong with it.

        Raises:
            InvalidMessage: The message as a whole is wrong.
        """
        request = _validate(TagManyRequest, body)
        if not request.items:
            raise InvalidMessage("items: none given; send at least one")
        if len(request.items) > self.limits.max_items:
            raise InvalidMessage(f"items: {len(request.items)} given, limit is {self.limits.max_items} a message")
        lenient = _is_newer(request.schema_version)
        batch_id = request.id or task_id
        return [
            self._item(request, raw, lenient=lenient, item_id=f"{batch_id}/{i}") for i, raw in enumerate(request.items)
        ]

    def _item(self, request: TagManyRequest, raw: dict[str, Any], *, lenient: bool, item_id: str) -> Item:
        if raw == ERASED_ITEM:
            return DocumentErased()
        try:
            item = _parse(TagItem, raw, lenient=lenient)
            kind = item.kind or request.kind or DEFAULT_KIND
            return self._task(item, request, task_id=item.id or item_id, kind=kind)
        except InvalidMessage as e:
            return e

    def _task(self, own: TagRequest | TagItem, shared: _Question, *, task_id: str, kind: Kind) -> TagTask:
        self._refuse_other_model(own.model or shared.model)
        text = self._text(own.text)
        asked = self._label_set(own if own.labels is not None or own.label_set is not None else shared)
        multi = own.multi_label if own.multi_label is not None else shared.multi_label
        return TagTask(
            id=task_id,
            kind=kind,
            source=own.source or shared.source or DEFAULT_SOURCE,
            ref=own.ref or own.id or task_id,
            revision=own.revision,
            text=text,
            labels=asked.labels,
            label_set=asked.name or None,
            multi_label=asked.multi_label if multi is None else multi,
            template=check_template(own.template or shared.template or asked.template or self.default_template),
            policy=asked.policy,
            long_text=_long_text(own, shared, asked),
            write_back=own.write_back or shared.write_back,
            relabel=bool(shared.relabel if own.relabel is None else own.relabel),
        )

    def _refuse_other_model(self, model: str | None) -> None:
        if model is not None and model != self.model:
            raise InvalidMessage(f"model: {model!r} is asked for; this worker serves {self.model!r}")

    def _text(self, raw: str) -> str:
        text = clean(raw)
        if not text:
            raise InvalidMessage("text: empty after cleaning; send 1 character or more")
        if len(text) > self.limits.max_text_chars:
            raise InvalidMessage(f"text: {len(text):,} characters, limit is {self.limits.max_text_chars:,}")
        return text

    def _label_set(self, asked: _Question) -> LabelSet:
        if asked.labels is not None and asked.label_set is not None:
            raise InvalidMessage("labels and label_set: give one of them, not both")
        if asked.label_set is not None:
            return self.book.get(asked.label_set)
        if asked.labels is None:
            raise InvalidMessage("labels: none given; send labels, or the name of a label_set")
        return LabelSet(
            name="", labels=check_labels(asked.labels, max_labels=self.limits.max_labels), policy=self.policy
        )


def _long_text(own: _Question, shared: _Question, asked: LabelSet) -> LongText:
    rule = own.long_text or shared.long_text or asked.long_text.rule
    overlap = own.overlap if own.overlap is not None else shared.overlap
    if rule == "truncate":
        return TRUNCATE  # an overlap makes no difference, and what is the same has to be equal
    return LongText(rule, asked.long_text.overlap if overlap is None else overlap)


@lru_cache(maxsize=1024)
def _fill(template: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template.format(label) for label in labels)


@lru_cache(maxsize=1024)
def check_template(template: str) -> str:
    """The template, which has exactly one ``{}`` and no other brace.

    Raises:
        InvalidMessage: It has not.
    """
    if not template.count("{}") == template.count("{") == template.count("}") == 1:
        raise InvalidMessage("template: must hold exactly one {} for the label, and no other brace")
    return template


def body_of(args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """The message inside a Celery task's arguments.

    Raises:
        InvalidMessage: The arguments are not one JSON object.
    """
    if len(args) == 1 and not kwargs:
        return args[0]
    if kwargs and not args:
        return dict(kwargs)
    raise InvalidMessage("arguments: send one JSON object as the only argument")


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message, by task name."""
    return {
        "tagmill.tag_ticket, tagmill.tag_comment": TagRequest.model_json_schema(),
        "tagmill.tag_many": TagManyRequest.model_json_schema(),
        "item of tagmill.tag_many": TagItem.model_json_schema(),
    }


def _validate(model: type[M], body: object) -> M:
    if not isinstance(body, dict):
        raise InvalidMessage(f"message: expected a JSON object, got {type(body).__name__}")
    return _parse(model, body, lenient=_is_newer(body.get("schema_version", SCHEMA_VERSION)))


def _parse(model: type[M], body: object, *, lenient: bool) -> M:
    if not isinstance(body, dict):
        raise InvalidMessage(f"item: expected a JSON object, got {type(body).__name__}")
    if lenient:
        body = {name: value for name, value in body.items() if name in model.model_fields}
    try:
        return model.model_validate(body)
    except ValidationError as e:
        raise InvalidMessage(_explain(e)) from None  # the cause quotes the input, which is customer text


def _is_newer(version: object) -> bool:
    """Whether the message has a newer minor version, whose unknown fields are to be ignored."""
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise InvalidMessage(f"schema_version: expected a text such as {SCHEMA_VERSION!r}")
    major, minor = int(match[1]), int(match[2])
    if major != _MAJOR:
        raise UnsupportedVersion(f"schema_version: {version} came, this worker speaks {_MAJOR}.x; upgrade the worker")
    return minor > _MINOR


def _explain(error: ValidationError) -> str:
    """Every problem by field, without the values, which may be customer text."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(p)[:40] for p in problem['loc'])}: {_MESSAGES.get(problem['type'], problem['msg'])}"
        for problem in problems[:5]
    )
