"""``tagmill backfill``: tag every row of a file or table, and say how far it is."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from tagmill.commands.enqueue import split_labels

if TYPE_CHECKING:
    from producers.backfill.job import JobFile
    from producers.backfill.progress import Progress
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


@command.command(_RUN)
@click.argument("source")
@click.option("-l", "--labels", default="", help="Comma-separated, Chinese commas too.")
@click.option("-S", "--label-set", default="", help="Name of a label set.")
@click.option("--multi-label", is_flag=True, help="Score each label by itself, whatever the label set says.")
@click.option("--template", default="", help="Hypothesis with one {}. Default: the label set's, then the model's.")
@click.option("--model", default="", help="Refuse workers that serve another one.")
@click.option(
    "--out", default="ledger", show_default=True, help="PATH that ends in .jsonl, .csv or .parquet, or ledger."
)
@click.option("--job", "name", default="", help="Name of the job. Default: that of SOURCE and the label set.")
@click.option("--source-name", default="", help="System that the rows come from, where they do not say.")
@click.option("--format", "file_format", help="csv, tsv, jsonl or parquet. Default: told from the name.")
@click.option("--encoding", help="Default: told from the first MiB, UTF-8 or GB 18030.")
@click.option("--table", help="Of a database.")
@click.option("--query", help="Of a database, instead of a table.")
@click.option("--key", help="Column that each row of table or query has to itself. Default: the primary key.")
@click.option("--text-column", help="Default: text, content, body, description and the like.")
@click.option("--ref-column", help="Default: ref, id or ticket_id; '' for none.")
@click.option("--revision-column", help="Default: revision; '' for none.")
@click.option("--kind-column", help="Default: kind; '' for none.")
@click.option("--again", is_flag=True, help="Ask also where an answer of this model stands: it was replaced.")
@click.option("--relabel", is_flag=True, help="Labels changed: compute only those that the ledger has no logits of.")
@click.option("--max-rate", type=click.FloatRange(0, min_open=True), help="Texts a second.")
@click.option("--between", default="", help="Send only in these hours of local time, such as 22:00-06:00.")
@click.option("--dry-run", is_flag=True, help="Only say what it would come to, from the answers to a sample.")
@click.option("--sample", type=click.IntRange(1), default=200, show_default=True, help="Rows of it, with --dry-run.")
@click.option("--report", "report_path", type=click.Path(dir_okay=False, path_type=Path), help="Markdown goes here.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def run(
    name: str, dry_run: bool, sample: int, report_path: Path | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Tag every row of SOURCE through the intake.

    SOURCE is a file of CSV, TSV, JSON lines or Parquet, gzipped or not; - for standard input; a URL such as
    s3://bucket/tickets.csv; or that of a database, with --table or --query.

    Rows without an answer go to JOB.rejects.jsonl beside SOURCE, which can be a SOURCE. Exit codes: 0 every row has an
    answer, 1 some have none or the job was paused, 2 usage, 3 broker unreachable: the same command goes on.
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


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def resume(name: str, as_json: bool, quiet: bool) -> None:
    """Go on with the job of this NAME as it was begun."""
    with _existing(name) as (loaded, job), job.locked():
        if (begun := job.fact("spec")) is None:
            raise click.UsageError(f"job {name!r} was never begun; run the command that made it")
        spec = json.loads(begun)
        options = {**spec, "max_rate": None, "between": ""}
        _run(loaded, job, _source(options), options, spec=spec, report_path=None, as_json=as_json, quiet=quiet)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """List the jobs and how far each is."""
    from producers.backfill.job import names_in
    from tagging.settings import load

    for name in names_in(load().settings.backfill.jobs_dir):
        _show(name, as_json=as_json)


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(name: str, as_json: bool) -> None:
    """Say how far the job of this NAME is."""
    _show(name, as_json=as_json)


@command.command()
@click.argument("name")
def pause(name: str) -> None:
    """Stop whoever runs the job of this NAME; what is on the queue is still tagged, and kept when it is resumed."""
    _wish(name, "pause", "whoever runs it stops at its next step; `tagmill backfill resume` goes on")


@command.command()
@click.argument("name")
def cancel(name: str) -> None:
    """End the job of this NAME for good; what is tagged stays, until `undo`."""
    _wish(name, "cancel", "whoever runs it stops at its next step, and it is not run again")


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def undo(name: str, as_json: bool) -> None:
    """Take back what the job of this NAME wrote to the ledger, and put back what stood before it.

    Tags that somebody wrote in their place meanwhile stay. Refused while the job runs, and while a message of it is
    accepted and not finished.
    """
    from producers.backfill.undoing import undo as undo_job
    from tagmill.ledgers import open_ledgers

    with _existing(name) as (loaded, job), job.locked(), open_ledgers(loaded.settings) as ledgers:
        undone = undo_job(job, tags=ledgers.tags, intake=ledgers.intake)
    click.echo(
        json.dumps(undone) if as_json else f"{undone['removed']:,} taken back, {undone['kept']:,} not ours any more"
    )


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


def _show(name: str, *, as_json: bool) -> None:
    with _existing(name) as (_, job):
        counts = job.counts()
        state = job.fact("ended") or {"pause": "paused", "cancel": "cancelled"}.get(job.wish, "open")
    done = counts.read - counts.open
    row = {"job": name, "state": state, "read": counts.read, "answered": done, "open": counts.open}
    click.echo(json.dumps(row) if as_json else f"{name}  {state}  {done:,} of {counts.read:,} rows that were read")


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
    """Where there is room beside the source: its folder, or this one where it is in none."""
    return Path() if source == "-" or "://" in source else Path(source).parent


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
    from producers.backfill.outputs import write_output, write_rejects
    from producers.backfill.report import report_of
    from producers.backfill.sources import without_password

    if job.wish == "cancel" or job.fact("ended") == "undone":
        was = "cancelled" if job.wish == "cancel" else "undone"
        raise click.UsageError(f"job {job.name!r} was {was}; give another one a name with `run --job`")
    plan = _plan(loaded, options, job.name)
    job.describe({"source": source.fingerprint, "question": plan.question.to_json(), "out": options["out"]})
    job.state("spec", json.dumps({**spec, "source": without_password(spec["source"])}))
    job.state("wish", "run")
    began = time.monotonic()
    with _runners(loaded) as (_, runner), _watched(loaded, job.name, source, quiet=quiet) as watch:
        ended = runner(job, source, plan, watch).run()
    job.state("ended", ended)
    report = report_of(job, ended=ended, labels=len(plan.question.labels), seconds=time.monotonic() - began)
    if ended == "done":
        if not plan.into_ledger:
            write_output(Path(options["out"]), job.answered())
        if report.rejected or report.failed:
            rejects = _folder(options["source"]) / f"{job.name}.rejects.jsonl"
            write_rejects(rejects, job.refused())
            click.echo(f"{report.rejected + report.failed:,} rows without an answer: {rejects}", err=True)
    if report_path is not None:
        report_path.write_text(report.to_markdown(), encoding="utf-8")
    click.echo(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else report.to_markdown())
    sys.exit(report.exit_code)


def _plan(loaded: "Loaded", options: dict[str, Any], job: str) -> "Plan":
    """What the options and settings say, checked as a worker would check it."""
    from producers.backfill.outputs import output_format
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
            output_format(Path(options["out"]))
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
