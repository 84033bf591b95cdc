"""The command line answers at once, in words, with exit codes that scripts can tell apart."""

import subprocess
import sys

import pytest

from tagmill.__main__ import COMMANDS
from tagmill.commands.enqueue import split_labels, summary
from tests.commands import ROOT, Tagmill


@pytest.fixture
def tagmill(tmp_path):
    nobody = "redis://127.0.0.1:1/0"
    return Tagmill(tmp_path, {f"TAGMILL_{part}__URL": nobody for part in ("BROKER", "RESULTS", "CACHE")})


def test_help_imports_nothing_heavy():
    code = (
        "import sys, click.testing, tagmill.__main__ as m; "
        "r = click.testing.CliRunner().invoke(m.cli, ['--help']); "
        "assert r.exit_code == 0, r.output; "
        "print(sorted({'torch', 'celery', 'redis', 'sqlalchemy', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(tagmill, name):
    done = tagmill(name, "--help")
    assert done.code == 0, done.err
    assert "Usage:" in done.out


@pytest.mark.parametrize("name", ["", "run", "list", "status", "pause", "resume", "cancel", "undo"])
def test_the_help_of_backfills_fits_into_eighty_columns_and_says_something_about_each_option(tagmill, name):
    narrow = Tagmill(tagmill.folder, {**tagmill.environ, "COLUMNS": "80"})
    said = narrow("backfill", *filter(None, [name]), "--help").out
    assert max(map(len, said.splitlines())) <= 80
    assert "..." not in said.replace("[ARGS]...", "")
    alone = [line for line in said.partition("Options:")[2].splitlines() if line.startswith("  -")]
    assert all("  " in line.strip() for line in alone), alone


def test_each_measurement_says_in_whole_sentences_what_it_measures(tagmill):
    listed = tagmill("bench", "--help").out.partition("Commands:")[2]
    assert "..." not in listed
    assert "about half an hour" in " ".join(listed.split())


def test_wrong_settings_are_reported_together_with_exit_code_2(tagmill):
    wrong = {**tagmill.environ, "TAGMILL_BROKER__PREFETCH": "4", "TAGMILL_NO__SUCH": "1"}
    done = Tagmill(tagmill.folder, wrong)("config", "show")
    assert done.code == 2
    assert "broker.prefetch is 4 but batching.max_messages is 64" in done.err
    assert "TAGMILL_NO__SUCH" in done.err
    assert "Traceback" not in done.err


def test_the_catalogue_of_metrics_is_printed_as_its_page_and_as_json(tagmill):
    assert tagmill("metrics").out == (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert {"tagmill_pairs_total", "tagmill_queue_seconds"} <= {
        row["name"] for row in tagmill("metrics", "--json").rows
    }


def test_a_broker_out_of_reach_is_exit_code_3(tagmill):
    done = tagmill("enqueue", "快递三天没动了", "-l", "物流,退款")
    assert done.code == 3
    assert done.err.startswith("broker: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "fate"),
    [((), "kept in the ledger, so do not send it again"), (("--direct",), "not accepted, since --direct goes past")],
    ids=["accepted", "direct"],
)
def test_without_a_broker_it_is_said_what_became_of_the_text_and_what_to_do(tagmill, options, fate):
    done = tagmill("enqueue", "快递三天没动了", "-l", "物流,退款", *options)
    assert done.code == 3
    assert fate in " ".join(done.err.split())
    assert "`make up`" in done.err


def test_settings_show_their_origin_and_hide_their_secrets(tagmill):
    secret = {
        **tagmill.environ,
        "TAGMILL_LEDGER__URL": "postgresql://me:hunter2@db/tags",
        "TAGMILL_CACHE__PEPPER": "salt",
    }
    done = Tagmill(tagmill.folder, secret)("config", "show")
    assert done.code == 0
    assert "hunter2" not in done.out
    assert "salt" not in done.out
    assert "TAGMILL_LEDGER__URL" in done.out
    assert "default" in done.out


def test_wrong_lines_are_refused_before_anything_is_sent(tagmill):
    done = tagmill("enqueue", "--file", "-", text='{"text": "", "labels": ["a"]}\nnot json\n')
    assert "line 1: text: empty" in done.err
    assert "line 2: expected a JSON object" in done.err


def test_labels_are_split_at_chinese_commas_too():
    assert split_labels("物流，退款, 发票,,") == ["物流", "退款", "发票"]


def test_an_answer_fits_on_a_line():
    assert summary({"tags": [{"label": "物流", "score": 0.912, "decision": "apply"}]}) == "物流 0.91"
    assert summary({"tags": []}) == "abstained"
    assert summary({"error": "text: empty"}) == "text: empty"
