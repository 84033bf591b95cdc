"""``tagmill enqueue``: put texts on the queue and print their ids."""

import json
import sys
import uuid
from collections.abc import Iterator
from typing import Any, Final, TextIO

import click

from tagging.errors import BrokerUnreachable, InvalidMessage
from tagging.names import TASK_OF_KIND, Kind

_LATER: Final = """\
accepted, and not on the queue yet: it is kept in the ledger, so do not send it again. `tagmill relay`, or `tagmill up`
(`make up`), which starts a broker and a worker as well where there are none, puts it there."""
_LOST: Final = """\
not accepted, since --direct goes past the ledger: nobody sends again what has not arrived. Start the broker
(`tagmill up`, `make up`) and send it again, or leave out --direct."""


@click.command()
@click.argument("text", required=False)
@click.option("-f", "--file", type=click.File("r", encoding="utf-8"), help="JSON lines, one message each; - for stdin.")
@click.option("-l", "--labels", default="", help="Comma-separated, Chinese commas too.")
@click.option("-S", "--label-set", default="", help="Name of a label set.")
@click.option("--multi-label", is_flag=True, help="Score each label by itself.")
@click.option("--kind", type=click.Choice(["ticket", "comment"]), default="ticket", show_default=True)
@click.option("--source", default="cli", show_default=True, help="System that the text comes from.")
@click.option("--ref", default="", help="The ticket's id in its source.")
@click.option("--revision", type=click.IntRange(0), default=0)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=0.0,
    help="Wait so many seconds for the answers and print them.",
)
@click.option("--once", is_flag=True, help="Accept the same question about the same revision of a --ref only once.")
@click.option("--direct", is_flag=True, help="Past the intake: straight to the broker, which may lose it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    text: str | None, file: TextIO | None, wait_s: float, once: bool, direct: bool, as_json: bool, **options: Any
) -> None:
    """Accept TEXT, or each line of --file, put it on the queue and print the ids.

    A line of --file is a message of the contract: {"text": …, "labels": […] or "label_set": …, "ref"?, "revision"?,
    "kind"?}; what it leaves out comes from the options. A line that is wrong is reported and the rest is sent: exit 1.

    What is accepted is in the ledger and gets done, whatever becomes of the broker: exit code 3 means that it is not on
    the queue yet, and that `tagmill relay` or `tagmill up` will put it there.
    """
    if (text is None) == (file is None):
        raise click.UsageError("give a TEXT or --file, not both")
    from ledger.intake import Submission
    from producers.publisher import Publisher
    from tagging.settings import load
    from tagmill.sending import accept_and_send, send_directly

    defaults = _defaults(**options)
    kind: Kind = options["kind"]
    loaded = load()
    checker = _Checker(loaded)
    ready: list[Submission] = []
    rejected: list[str] = []
    for number, message in enumerate(_messages(text, file), start=1):
        try:
            task, checked, task_id = checker.checked(message, defaults, kind)
            ready.append(Submission.once(task, checked) if once else Submission(id=task_id, task=task, message=checked))
        except InvalidMessage as e:
            rejected.append(f"line {number}: {e}")
    publisher = Publisher(loaded.settings)
    send = send_directly if direct else accept_and_send
    try:
        sent = send(loaded.settings, publisher, ready)
    except BrokerUnreachable as e:
        raise BrokerUnreachable(f"{e}\n{_LOST}") from e
    for line in [*rejected, *sent.refused]:
        click.echo(line, err=True)
    failed = _report(publisher, sent.ids, wait_s=wait_s, as_json=as_json)
    if sent.unreachable is not None:
        click.echo(f"broker: {sent.unreachable}\n{_LATER}", err=True)
        sys.exit(3)
    sys.exit(1 if rejected or sent.refused or failed else 0)


class _Checker:
    """Refuses here what a worker would park: the one who typed it is still there to read why."""

    def __init__(self, loaded: Any) -> None:
        from tagging.labels import LabelBook
        from tagging.messages import Decoder

        settings = loaded.settings
        book = LabelBook.load(loaded.config_dir / "labels", max_labels=settings.labels.max_per_set)
        self._decoder = Decoder(book=book, model=settings.model.name, default_template="{}", limits=settings.limits)

    def checked(self, raw: object, defaults: dict[str, Any], kind: Kind) -> tuple[str, dict[str, Any], str]:
        """The task's name, its message and its id."""
        if not isinstance(raw, dict):
            raise InvalidMessage("expected a JSON object")
        shared = {k: v for k, v in defaults.items() if k not in ("labels", "label_set") or not _has_labels(raw)}
        message = {**shared, **raw}
        task = TASK_OF_KIND[kind if message.get("kind") not in TASK_OF_KIND else message["kind"]]
        task_id = str(message.get("id") or uuid.uuid4())
        self._decoder.one(task, message, task_id=task_id)
        return task, message, task_id


def _has_labels(message: dict[str, Any]) -> bool:
    return message.get("labels") is not None or message.get("label_set") is not None


def _defaults(labels: str, **options: Any) -> dict[str, Any]:
    """The fields that the options give; what was not given is left out."""
    given = {name: options[name] for name in ("source", "label_set", "multi_label", "ref", "revision") if options[name]}
    return {**given, "labels": split_labels(labels)} if labels else given


def split_labels(text: str) -> list[str]:
    """Labels between commas, Chinese ones too; empty ones are dropped, as ModelScope's pipeline does."""
    return [label.strip() for label in text.replace("，", ",").split(",") if label.strip()]


def _messages(text: str | None, file: TextIO | None) -> Iterator[object]:
    if file is None:
        yield {"text": text}
        return
    for line in file:
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                yield None


def _report(publisher: Any, ids: list[str], *, wait_s: float, as_json: bool) -> int:
    """Print ids or, when asked to wait, answers; how many failed."""
    failed = 0
    for task_id in ids:
        answer = _answer(publisher.result(task_id), wait_s) if wait_s else None
        failed += bool(wait_s) and (answer is None or "error" in answer)
        if as_json:
            click.echo(json.dumps({"id": task_id, **({"answer": answer} if wait_s else {})}, ensure_ascii=False))
        elif answer is None:
            click.echo(task_id)
        else:
            click.echo(f"{task_id}  {summary(answer)}")
    return failed


def summary(answer: dict[str, Any]) -> str:
    """An answer on one line."""
    if "error" in answer:
        return str(answer["error"])
    tags = ", ".join(f"{tag['label']} {tag['score']:.2f}" for tag in answer["tags"])
    return tags or "abstained"


def _answer(result: Any, wait_s: float) -> dict[str, Any] | None:
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    try:
        answer: dict[str, Any] = result.get(timeout=wait_s)
    except CeleryTimeoutError:
        return None
    except Exception as e:  # noqa: BLE001  # whatever the worker answered with
        return {"error": str(e)}
    return answer
