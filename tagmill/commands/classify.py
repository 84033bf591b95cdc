"""``tagmill classify``: the engine alone, no broker."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from tagging.errors import InvalidMessage, TagmillError
from tagging.labels import LabelBook, Policy
from tagging.long_text import TRUNCATE, LongText
from tagging.messages import Decoder
from tagging.names import TAG_TICKET
from tagging.settings import Loaded, load
from tagmill.commands.enqueue import split_labels, summary

if TYPE_CHECKING:
    from workers.ports import Engine

_FIELDS: Final = ("text", "labels", "label_set", "multi_label", "template", "long_text", "overlap")
_WINDOW: Final = 256
"""Lines scored together: enough to sort by length, few enough to see answers come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One line of the input, ready to be scored."""

    text: str
    labels: Sequence[str]
    hypotheses: Sequence[str]
    multi_label: bool
    policy: Policy
    long_text: LongText = TRUNCATE


@click.command()
@click.option("-m", "--model", default="", help="Name in the catalogue, or a checkpoint's folder. Default: model.name.")
@click.option("-l", "--labels", default="", help="Comma-separated, for lines that bring none.")
@click.option("-S", "--label-set", default="", help="Label set for lines that bring no labels.")
@click.option("--multi-label", is_flag=True, help="Score each label by itself.")
@click.option("-t", "--template", default=None, help="Hypothesis with one {} for the label. Default: the model's.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16", "int8"]), help="Default: by device.")
@click.option("--device", default="", help="cpu, cuda or cuda:N. Default: model.device.")
@click.option("--exact", is_flag=True, help="As ModelScope's pipeline: no cleaning, no limits, [SEP] in a text is one.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, also on a terminal.")
@click.argument("texts", type=click.File("r", encoding="utf-8"), default="-", metavar="[FILE]")
def command(
    texts: TextIO, model: str, precision: str | None, device: str, exact: bool, as_json: bool, **given: Any
) -> None:
    """Score the texts in FILE: JSON lines {"text", "labels"|"label_set"?, "multi_label"?, "template"?, "long_text"?}.

    Standard input by default.

    One line a text comes out, in order: {"labels", "scores", "tags", "model"} with labels and scores in the order of
    the input, or {"error"}. Exit code 1 if any line failed.
    """
    loaded = load()
    engine = _open(loaded, model=model, precision=precision, device=device, exact=exact)
    reader = _Exact(given) if exact else _Careful(loaded, engine, given)
    as_json = as_json or not sys.stdout.isatty()
    failed = False
    for answer in _answers(engine, reader, texts):
        failed = failed or "error" in answer
        click.echo(json.dumps(answer, ensure_ascii=False) if as_json else summary(answer))
    engine.close()
    sys.exit(1 if failed else 0)


class _Careful:
    """Reads lines as a worker reads messages."""

    def __init__(self, loaded: Loaded, engine: "Engine", given: dict[str, Any]) -> None:
        settings = loaded.settings
        self._given = given
        self._decoder = Decoder(
            book=LabelBook.load(loaded.config_dir / "labels", max_labels=settings.labels.max_per_set),
            model=engine.info.name,
            default_template=engine.info.template,
            limits=settings.limits,
            policy=settings.policy,
        )

    def read(self, line: dict[str, Any]) -> Question:
        """The line's question; what it leaves out comes from the options.

        Raises:
            InvalidMessage: What is wrong with it.
        """
        message: dict[str, Any] = {name: line[name] for name in _FIELDS if name in line}
        if "labels" not in message and "label_set" not in message:
            message |= _labels_given(self._given)
        if self._given["multi_label"]:
            message.setdefault("multi_label", True)
        if self._given["template"] is not None:
            message.setdefault("template", self._given["template"])
        task = self._decoder.one(TAG_TICKET, message, task_id="-")
        return Question(
            text=task.text,
            labels=task.labels,
            hypotheses=task.hypotheses,
            multi_label=task.multi_label,
            policy=task.policy,
            long_text=task.long_text,
        )


class _Exact:
    """Reads lines as ModelScope's pipeline does: labels as they come, `{}` unless a template is given."""

    def __init__(self, given: dict[str, Any]) -> None:
        if given["label_set"]:
            raise click.UsageError("--exact takes --labels or labels in the lines, not a --label-set")
        self._given = given

    def read(self, line: dict[str, Any]) -> Question:
        """The line's question.

        Raises:
            InvalidMessage: The pipeline would raise an error.
        """
        text, labels = line.get("text"), line.get("labels", self._given["labels"])
        labels = split_labels(labels) if isinstance(labels, str) else labels
        if not isinstance(text, str):
            raise InvalidMessage("text: expected a text")
        if not isinstance(labels, list) or not labels:
            raise InvalidMessage("labels: none given")
        template = line.get("template", self._given["template"])
        names = [str(label) for label in labels]
        return Question(
            text=text,
            labels=names,
            hypotheses=[_fill("{}" if template is None else template, name) for name in names],
            multi_label=bool(line.get("multi_label", self._given["multi_label"])),
            policy=Policy(),
        )


def _open(loaded: Loaded, *, model: str, precision: str | None, device: str, exact: bool) -> "Engine":
    from workers.engines.build import build_engine
    from workers.engines.options import options_of

    settings = loaded.settings.model
    wanted = precision or (None if settings.precision == "auto" else settings.precision)
    return build_engine(
        model or settings.name,
        device=device or settings.device,
        precision=wanted,
        max_tokens=settings.max_tokens_per_pass or None,
        max_length=settings.max_length or None,
        threads=settings.threads or None,
        options=options_of(settings),
        exact=exact or not settings.protect_special_tokens,
        cache_dir=Path(settings.cache_dir).expanduser(),
        catalogue=loaded.config_dir / "models.toml",
        in_process=True,
        check=False,  # any checkpoint may be looked at; only serving asks for the self-test
    )


def _answers(engine: "Engine", reader: "_Careful | _Exact", texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    lines = (line for line in texts if line.strip())
    while window := list(islice(lines, _WINDOW)):
        read = [_read(reader, line) for line in window]
        yield from _score(engine, read)


def _read(reader: "_Careful | _Exact", line: str) -> Question | InvalidMessage:
    try:
        parsed = json.loads(line)
        if not isinstance(parsed, dict):
            raise InvalidMessage("expected a JSON object")
        return reader.read(parsed)
    except json.JSONDecodeError as e:
        return InvalidMessage(f"not JSON: {e.msg} at column {e.colno}")
    except InvalidMessage as e:
        return e


def _score(engine: "Engine", read: Sequence[Question | InvalidMessage]) -> Iterator[dict[str, Any]]:
    from workers.ports import Pair

    pairs = [Pair(q.text, h, q.long_text) for q in read if isinstance(q, Question) for h in q.hypotheses]
    try:
        logits = iter(engine.entail(pairs).logits)
    except TagmillError as e:
        yield from ({"error": str(e)} for _ in read)
        return
    for question in read:
        if isinstance(question, Question):
            yield _answer(engine, question, [next(logits) for _ in question.hypotheses])
        else:
            yield {"error": str(question)}


def _answer(engine: "Engine", question: Question, logits: Sequence[Any]) -> dict[str, Any]:
    from workers import scoring

    if not scoring.is_finite(logits):
        return {"error": "the model answered NaN or Inf for this text"}
    scores = scoring.score(logits, multi_label=question.multi_label)
    info = engine.info
    return {
        "labels": list(question.labels),
        "scores": scores,
        "tags": scoring.decide(question.labels, scores, multi_label=question.multi_label, policy=question.policy),
        "model": {
            "name": info.name,
            "revision": info.revision,
            "fingerprint": info.fingerprint,
            "precision": info.precision,
        },
    }


def _labels_given(given: dict[str, Any]) -> dict[str, Any]:
    if given["label_set"]:
        return {"label_set": given["label_set"]}
    return {"labels": split_labels(given["labels"])} if given["labels"] else {}


def _fill(template: str, label: str) -> str:
    try:
        return template.format(label)
    except (IndexError, KeyError, ValueError, AttributeError) as e:
        raise InvalidMessage(f"template: cannot be filled: {e!r}") from None
