"""An older revision never overwrites a newer one; the same task delivered twice writes once.

In any order, with erasures and edits between: the state machine in ``tests/ports/test_tag_store_machine.py``.
"""

import pytest

from tests.broker.sites import ANSWER_S, CANARY, Site

pytestmark = pytest.mark.usefixtures("worker")


def test_a_message_delivered_twice_has_one_row_in_the_ledger(site: Site) -> None:
    fields = {"text": f"sent twice {CANARY}", "ref": "twice-1"}
    for _ in range(2):
        site.send(fields=fields, task_id="twice").get(timeout=ANSWER_S)
    (row,) = site.tags("twice-1")
    again = site.send(fields=fields, task_id="twice")
    again.get(timeout=ANSWER_S)
    site.send().get(timeout=ANSWER_S)
    assert [r.updated_at for r in site.tags("twice-1")] == [row.updated_at]


def test_an_older_revision_never_replaces_a_newer_one(site: Site) -> None:
    for revision in (2, 1):
        site.send(fields={"ref": "edited-1", "revision": revision}).get(timeout=ANSWER_S)
    assert [row.revision for row in site.tags("edited-1")] == [2]
