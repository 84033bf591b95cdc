"""`tagmill demo` tags the shipped samples with the demo model and leaves nothing running."""

from pathlib import Path

import pytest

from tagging.labels import LabelBook
from tagmill.commands.demo import samples, summarise
from tests.commands import ROOT, Tagmill


def test_the_samples_are_many_in_both_languages_with_several_label_sets():
    shipped = samples()
    sets = {sample["label_set"] for sample in shipped}
    known = {label_set.name for label_set in LabelBook.load(ROOT / "config" / "labels", max_labels=100)}
    assert len(shipped) >= 60
    assert {sample["lang"] for sample in shipped} == {"zh", "en"}
    assert {sample["kind"] for sample in shipped} == {"ticket", "comment"}
    assert len(sets) >= 3
    assert sets <= known


def test_a_summary_adds_up():
    answer = {"cache": "none", "queue_ms": 5.0, "infer_ms": 1.0, "tokens": 7}
    summary = summarise([answer, {**answer, "cache": "local"}, {"error": "x"}], wall_s=3.0)
    assert (summary["texts"], summary["failed"], summary["cache_hits"], summary["tokens"]) == (3, 1, 1, 14)


@pytest.mark.slow
def test_every_sample_is_tagged_and_the_temporary_folder_is_gone(tmp_path):
    done = Tagmill(tmp_path, {"TMPDIR": str(tmp_path)})("demo", "--json")
    assert done.code == 0, done.err
    [result] = done.rows
    assert result["summary"]["texts"] == len(samples())
    assert result["summary"]["failed"] == 0
    assert result["summary"]["cache_hits"] >= 10
    assert {answer["model"]["name"] for answer in result["answers"]} == {"demo"}
    assert not list(Path(tmp_path).glob("tagmill-demo-*"))
