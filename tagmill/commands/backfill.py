"""``tagmill backfill``: tag every row of a file or table, and say how far it is."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from tagging.documents import DEFAULT_SOURCE
from tagmill.commands.enqueue import split_labels

if TYPE_CHECKING:
    from producers.backfill.job import JobFile
    from producers.backfill.progress import Progress
    from producers.backfill.report import Report
    from producers.backfill.runner import Plan, Runner
    from producers.backfill.runner import Source as Records
    from producers.backfill.sources import Source
    from tagging.settings import Loaded
    from tagmill.ledgers import Ledgers
    from tagmill.watching import Watch

    class MakeRunner(Protocol):
        """Makes a runner of a job."""

        def __call__(self, job: JobFile, source: Records, plan: Plan, watch: Watch = ..., /) -> Runner:
            """The runner."""
            ...


_RUN: Final = "run"


class RunsByDefault(click.Group):
    """A group whose first argument may be a source: what is no subcommand is run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments, with the subcommand that was meant."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


@click.group(cls=RunsByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Tag every row of SOURCE: `tagmill backfill SOURCE --label-set S --out PATH` (`tagmill backfill run --help`).

    The same command again goes on where it stopped, however it stopped.
    """


@command.command(_RUN, short_help="Tag every row of a file or table.")
@click.argument("source")
@click.option("-l", "--labels", metavar="A,B", default="", help="Labels; Chinese commas will do.")
@click.option("-S", "--label-set", metavar="NAME", default="", help="A label set instead of labels.")
@click.option("--multi-label", is_flag=True, help="Score each label by itself, whatever the label set says.")
@click.option("--template", default="", help="Hypothesis with one {}. Default: the label set's, then the model's.")
@click.option("--model", metavar="NAME", default="", help="Refuse workers that serve another one.")
@click.option(
    "--out",
    metavar="PATH",
    default="ledger",
    show_default=True,
    help="Name in .jsonl, .csv or .parquet, the first two with .gz as well; also s3:// and the like; or ledger.",
)
@click.option("--write-back", is_flag=True, help="Beside the ledger also to the tickets, where a source is an account.")
@click.option("--job", "name", metavar="NAME", default="", help="Default: made of SOURCE and the label set.")
@click.option(
    "--source-name",
    metavar="NAME",
    default="",
    help=f"System that the rows come from, where they do not say. Default: {DEFAULT_SOURCE}.",
)
@click.option(
    "--format", "file_format", metavar="NAME", help="csv, tsv, jsonl or parquet. Default: by name or content."
)
@click.option("--encoding", metavar="NAME", help="Default: told from the first MiB, UTF-8 or GB 18030.")
@click.option("--table", metavar="NAME", help="Of a database.")
@click.option("--query", metavar="SQL", help="Of a database, instead of a table.")
@click.option("--key", metavar="COLUMN", help="That no two rows of table or query share. Default: the primary key.")
@click.option("--text-column", metavar="COLUMN", help="Default: text, content, body, description and the like.")
@click.option("--ref-column", metavar="COLUMN", help="Default: ref, id or ticket_id; '' for none.")
@click.option("--revision-column", metavar="COLUMN", help="Default: revision; '' for none.")
@click.option("--kind-column", metavar="COLUMN", help="Default: kind; '' for none.")
@click.option("--again", is_flag=True, help="Ask also where an answer of this model stands: it was replaced.")
@click.option("--relabel", is_flag=True, help="Labels changed: compute only those that the ledger has no logits of.")
@click.option("--max-rate", metavar="N", type=click.FloatRange(0, min_open=True), help="Texts a second at most.")
@click.option("--between", metavar="HOURS", default="", help="Send only in these, in local time: 22:00-06:00.")
@click.option("--dry-run", is_flag=True, help="Only say what it would come to, from the answers to a sample.")
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Rows that a dry run has answered.",
)
@click.option(
    "--report",
    "report_path",
    metavar="PATH",
    type=Path,
    help="The report goes to PATH.md and PATH.json. Default: JOB.report beside SOURCE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def run(
    name: str, dry_run: bool, sample: int, report_path: Path | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Tag every row of SOURCE through the intake.

    SOURCE is a file of CSV, TSV, JSON lines or Parquet, gzipped or not; - for standard input; a URL such as
    s3://bucket/tickets.csv; or that of a database, with --table or --query.

    Beside it, or in this folder where it lies in none that can be written to, are left JOB.report.md and
    JOB.report.json, and the rows without an answer as JOB.rejects.jsonl, which can be a SOURCE.

    \b
    Exit codes: 0 every row has an answer
                1 some have none, or the job was paused or cancelled
                2 wrong usage
                3 the broker cannot be reached; the same command goes on
    """
    from producers.backfill.job import JobFile
    from tagging.settings import load

    loaded = load()
    spec = {key: value for key, value in options.items() if key not in _PACE}
    name = name or f"{_stem(options)}-{options['label_set'] or 'labels'}"
    source = _source(options)
    if dry_run:
        _rehearse(loaded, name, source, options, sample=sample, as_json=as_json)
        return
    _plan(loaded, options, name)  # what is wrong leaves no job behind
    with closing(JobFile.create(loaded.settings.backfill.jobs_dir, name)) as job, job.locked():
        _run(loaded, job, source, options, spec=spec, report_path=report_path, as_json=as_json, quiet=quiet)


_PACE: Final = ("max_rate", "between")
"""What may differ from run to run of the same job."""


@command.command(short_help="Go on with a job.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def resume(name: str, as_json: bool, quiet: bool) -> None:
    """Go on with the job of this NAME as it was begun."""
    with _existing(name) as (loaded, job), job.locked():
        if (begun := job.fact("spec")) is None:
            raise click.UsageError(f"job {name!r} was never begun; run the command that made it")
        spec = json.loads(begun)
        options = {"write_back": False, **spec, "max_rate": None, "between": ""}
        _run(loaded, job, _source(options), options, spec=spec, report_path=None, as_json=as_json, quiet=quiet)


@command.command("list", short_help="List the jobs and how far each is.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """List the jobs and how far each is."""
    from producers.backfill.job import names_in
    from tagging.settings import load
    from tagging.wording import counted

    for name in names_in(load().settings.backfill.jobs_dir):
        with _existing(name) as (_, job):
            counts, state = job.counts(), _state(job)
        done = counts.read - counts.open
        row = {"job": name, "state": state, "read": counts.read, "answered": done, "open": counts.open}
        click.echo(json.dumps(row) if as_json else f"{name}  {state}  {done:,} of {counted(counts.read, 'row')} read")


@command.command(short_help="Say how far a job is and what it came to.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(name: str, as_json: bool) -> None:
    """Say how far the job of this NAME is: its report as it would be now, with what became of its write-backs."""
    from producers.backfill.report import report_of
    from tagmill.ledgers import open_ledgers

    with _existing(name) as (loaded, job), open_ledgers(loaded.settings) as ledgers:
        report = report_of(job, ended=_state(job), seconds=None, intake=ledgers.intake)
    state = {"state": report.ended, "answered": report.read - report.open}
    click.echo(
        json.dumps({**report.to_dict(), **state}, ensure_ascii=False) if as_json else "\n".join(report.summary())
    )


@command.command(short_help="Stop a job until it is resumed.")
@click.argument("name")
def pause(name: str) -> None:
    """Stop whoever runs the job of this NAME; what is on the queue is still tagged, and kept when it is resumed."""
    _wish(name, "pause", "whoever runs it stops at its next step; `tagmill backfill resume` goes on")


@command.command(short_help="End a job for good.")
@click.argument("name")
def cancel(name: str) -> None:
    """End the job of this NAME for good; what is tagged stays, until `undo`."""
    _wish(name, "cancel", "whoever runs it stops at its next step, and it is not run again")


@command.command(short_help="Take back what a job wrote.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def undo(name: str, as_json: bool) -> None:
    """Take back what the job of this NAME wrote to the ledger and to tickets, and put back what stood in the ledger.

    Tags that somebody wrote in their place meanwhile stay. Refused while the job runs, and while a message of it is
    accepted and not finished. Off their tickets come tags that were set for this job and are still ours, at each
    account's pace. Exit code 1 when a ticket failed; a second time takes it up again.
    """
    from producers.backfill.undoing import undo as undo_job
    from tagging.wording import counted
    from tagmill.ledgers import open_ledgers

    with _existing(name) as (loaded, job), job.locked(), open_ledgers(loaded.settings) as ledgers:
        take_off = _taking_off(loaded, job, ledgers)
        undone = undo_job(job, tags=ledgers.tags, intake=ledgers.intake)
        undone |= take_off()
    plain = f"{counted(undone['removed'], 'answer')} taken back, {undone['kept']:,} not ours any more"
    if "tickets" in undone:
        plain += (
            f"; {counted(undone['withdrawn'], 'order')} not carried out; {counted(undone['taken_off'], 'tag')} taken "
            f"off {counted(undone['tickets'], 'ticket')}, {counted(undone['tickets_failed'], 'ticket')} failed"
        )
    click.echo(json.dumps(undone) if as_json else plain)
    sys.exit(1 if undone.get("tickets_failed") else 0)


def _taking_off(loaded: "Loaded", job: "JobFile", ledgers: "Ledgers") -> Callable[[], dict[str, int]]:
    """What takes the job's tags off their tickets; accounts that are wrong are refused before anything is undone."""
    from ledger.writebacks import WriteBackLedger
    from producers.backfill.undoing import withdraw
    from workers.writeback.connections import connect_accounts
    from workers.writeback.undo import undo as take_off_tickets

    if job.fact("write_back") != "yes":
        return dict
    connections = connect_accounts(loaded)

    def take_off() -> dict[str, int]:
        write_backs = WriteBackLedger(ledgers.database)
        withdrawn, own = withdraw(job, write_backs, now=datetime.now(UTC))
        done = []
        for one in take_off_tickets(own, ledger=write_backs, connections=connections):
            done.append(one)
            told = one.error or ", ".join(one.tags) or "nothing left of ours"
            click.echo(f"{one.account}  {one.ticket}  {told}", err=True)
        failed = [one for one in done if one.error is not None]
        return {
            "withdrawn": withdrawn,
            "taken_off": sum(len(one.tags) for one in done),
            "tickets": len(done) - len(failed),
            "tickets_failed": len(failed),
        }

    return take_off


def _wish(name: str, wish: str, consequence: str) -> None:
    with _existing(name) as (_, job):
        job.state("wish", wish)
    click.echo(f"{name}: {consequence}", err=True)


@contextmanager
def _existing(name: str) -> Iterator[tuple["Loaded", "JobFile"]]:
    from producers.backfill.job import JobFile
    from tagging.settings import load

    loaded = load()
    with closing(JobFile.open(loaded.settings.backfill.jobs_dir, name)) as job:
        yield loaded, job


def _state(job: "JobFile") -> str:
    """How the job ended, or what somebody wishes of it, or that it is open."""
    ended = job.fact("ended") or "open"
    if ended in ("done", "undone"):
        return ended
    return {"pause": "paused", "cancel": "cancelled"}.get(job.wish, ended)


def _rehearse(
    loaded: "Loaded", name: str, source: "Source", options: dict[str, Any], *, sample: int, as_json: bool
) -> None:
    from producers.backfill.rehearsal import rehearse

    plan = _plan(loaded, options, name)
    with _runners(loaded) as (ledgers, runner):
        rehearsal = rehearse(source, plan, size=sample, tags=ledgers.tags, runner=runner)
    click.echo(json.dumps(rehearsal.to_dict(), ensure_ascii=False) if as_json else "\n".join(rehearsal.lines()))


def _source(options: dict[str, Any]) -> "Source":
    from producers.backfill.rows import Columns
    from producers.backfill.sources import open_source
    from tagging.errors import SourceRefused

    named = ("file_format", "encoding", "table", "query", "key")
    columns = Columns(**{role: options[f"{role}_column"] for role in ("text", "ref", "revision", "kind")})
    try:
        return open_source(options["source"], columns=columns, **{name: options[name] for name in named})
    except SourceRefused as e:
        raise click.UsageError(str(e)) from None


def _stem(options: dict[str, Any]) -> str:
    """What a job is called after."""
    if options["table"] or options["query"]:
        return options["table"] or "query"
    name = Path(options["source"]).name
    return "stdin" if name == "-" else Path(name.removesuffix(".gz")).stem


def _folder(source: str) -> Path:
    """Where there is room beside the source: its folder, or this one where it is in none that can be written to."""
    beside = Path() if source == "-" or "://" in source else Path(source).parent
    return beside if os.access(beside, os.W_OK) else Path()


@contextmanager
def _watched(loaded: "Loaded", job: str, source: "Source", *, quiet: bool) -> Iterator["Watch"]:
    """What shows people how far the job is; events are logged beside it, not across it."""
    from tagging import logs
    from tagmill.watching import watching

    with nullcontext(_unseen) if quiet else watching(job, source.extent) as watch:
        logs.configure(loaded.settings.log.level)
        yield watch


def _unseen(_progress: "Progress") -> None:
    """Nobody looks."""


@contextmanager
def _runners(loaded: "Loaded") -> Iterator[tuple["Ledgers", "MakeRunner"]]:
    """What makes runners on this deployment's ledger and broker, while these are open."""
    from ledger.writebacks import WriteBackLedger
    from producers.backfill.runner import Runner
    from producers.publisher import Publisher
    from tagging import logs
    from tagmill.ledgers import open_ledgers

    logs.configure(loaded.settings.log.level)  # on standard error: the other one is for what it comes to
    with open_ledgers(loaded.settings) as ledgers, closing(Publisher(loaded.settings)) as broker:

        def runner(job: "JobFile", source: "Records", plan: "Plan", watch: "Watch" = _unseen) -> Runner:
            return Runner(
                job=job,
                source=source,
                plan=plan,
                intake=ledgers.intake,
                tags=ledgers.tags,
                broker=broker,
                settings=loaded.settings.intake,
                write_backs=WriteBackLedger(ledgers.database),
                watch=watch,
            )

        yield ledgers, runner


def _run(
    loaded: "Loaded",
    job: "JobFile",
    source: "Source",
    options: dict[str, Any],
    *,
    spec: dict[str, Any],
    report_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from producers.backfill.report import report_of
    from producers.backfill.sources import without_password

    if job.wish == "cancel" or job.fact("ended") == "undone":
        was = "cancelled" if job.wish == "cancel" else "undone"
        raise click.UsageError(f"job {job.name!r} was {was}; give another one a name with `run --job`")
    plan = _plan(loaded, options, job.name)
    job.describe(
        {
            "source": source.fingerprint,
            "question": plan.question.to_json(),
            "out": without_password(options["out"]),
            "write_back": "yes" if plan.accounts else "no",
        }
    )
    job.state("spec", json.dumps({**spec, **{name: without_password(spec[name]) for name in ("source", "out")}}))
    job.state("wish", "run")
    job.state("ended", "open")
    began = time.monotonic()
    with _runners(loaded) as (ledgers, runner):
        with _watched(loaded, job.name, source, quiet=quiet) as watch:
            ended = runner(job, source, plan, watch).run()
        job.state("ended", ended)
        report = report_of(job, ended=ended, seconds=time.monotonic() - began, intake=ledgers.intake)
    files = _files(job, report, plan, options, report_path)
    if as_json:
        click.echo(json.dumps({**report.to_dict(), "files": files}, ensure_ascii=False))
    else:
        left = [f"{what}: {path}" for what, path in files.items() if what != "report_json"]
        click.echo("\n".join([*report.summary(), *left]))
    sys.exit(report.exit_code)


def _files(
    job: "JobFile", report: "Report", plan: "Plan", options: dict[str, Any], report_path: Path | None
) -> dict[str, str]:
    """Write what the job leaves behind as it stands; what is where."""
    from producers.backfill.destinations import Destination
    from producers.backfill.outputs import write_output, write_rejects, write_whole

    folder = _folder(options["source"])
    files: dict[str, str] = {}
    if report.ended == "done" and not plan.into_ledger:
        out = Destination.of(options["out"])
        write_output(out, job.answered(), scratch=job.path.parent)
        files["output"] = str(out.place)
    if report.ended == "done" and (report.rejected or report.failed):
        files["rejects"] = str(folder / f"{job.name}.rejects.jsonl")
        write_rejects(Path(files["rejects"]), job.refused())
    stem = report_path or folder / f"{job.name}.report"
    stem = stem.with_suffix("") if stem.suffix in (".md", ".json") else stem
    files |= {"report": f"{stem}.md", "report_json": f"{stem}.json"}
    write_whole(Path(files["report"]), report.to_markdown())
    write_whole(Path(files["report_json"]), json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n")
    return files


def _plan(loaded: "Loaded", options: dict[str, Any], job: str) -> "Plan":
    """What the options and settings say, checked as a worker would check it."""
    from producers.backfill.destinations import Destination
    from producers.backfill.pace import Hours, Limits
    from producers.backfill.question import Question
    from producers.backfill.runner import Plan, Sizes
    from tagging.errors import InvalidMessage, OutputRefused
    from tagging.labels import LabelBook
    from tagging.messages import Decoder
    from tagging.names import TAG_TICKET

    settings = loaded.settings
    named = {key: options[key] for key in ("label_set", "template", "model") if options[key]}
    body = {"text": "any", **named, **({"labels": split_labels(options["labels"])} if options["labels"] else {})}
    book = LabelBook.load(loaded.config_dir / "labels", max_labels=settings.labels.max_per_set)
    served = options["model"] or settings.model.name
    decoder = Decoder(book=book, model=served, default_template="{}", limits=settings.limits)
    try:
        task = decoder.one(
            TAG_TICKET, {**body, **({"multi_label": True} if options["multi_label"] else {})}, task_id=job
        )
    except InvalidMessage as e:
        raise click.UsageError(str(e)) from None
    if options["out"] != "ledger":
        try:
            Destination.of(options["out"])
        except OutputRefused as e:
            raise click.UsageError(f"--out: {e}") from None
    own = settings.backfill
    return Plan(
        question=Question(
            labels=task.labels,
            label_set=task.label_set,
            multi_label=task.multi_label,
            template=options["template"] or (book.get(task.label_set).template if task.label_set else None),
            serves=settings.model.name,
            model=options["model"] or None,
            round=job if options["again"] else "",
        ),
        into_ledger=options["out"] == "ledger",
        accounts=_accounts(loaded, options) if options["write_back"] else frozenset(),
        source=options["source_name"] or None,
        sizes=Sizes(
            window=own.window_rows,
            items=own.chunk_items,
            chars=own.chunk_tokens // len(task.labels),
            text_chars=settings.texts.max_chars,
        ),
        limits=Limits(
            in_flight=own.in_flight,
            live_waiting_high=own.live_waiting_high,
            live_waiting_low=own.live_waiting_low,
            live_age_s=own.live_age_s,
            max_rate=options["max_rate"],
            hours=Hours.parse(options["between"]) if options["between"] else None,
        ),
        patience_s=own.patience_s,
        relabel=options.get("relabel", False),  # a job that was begun by an earlier version does not say
        pepper=settings.cache.pepper.get_secret_value(),
    )


def _accounts(loaded: "Loaded", options: dict[str, Any]) -> frozenset[str]:
    """The accounts that have tags of this label set written to them."""
    from integrations.accounts import Accounts

    if options["out"] != "ledger":
        raise click.UsageError("--write-back: answers to a file have no tickets; leave out --out")
    if not options["label_set"]:
        raise click.UsageError("--write-back: what an account takes is set by label set; name one with --label-set")
    known = Accounts.without_secrets(loaded.config_dir)
    names = frozenset(name for name, account in known.items() if options["label_set"] in account.write_back)
    if not names:
        raise click.UsageError(
            f"--write-back: no account takes tags of {options['label_set']!r}; `tagmill writeback accounts` says "
            "which takes what"
        )
    return names
