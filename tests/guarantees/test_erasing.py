"""An erased document is nowhere, not even in a worker's memory, and no late duplicate brings it back.

Table by table: ``tests/ports/test_erasure.py``.
"""

from tagging.names import QUEUE_OF_TASK, TAG_TICKET
from tests.broker.intake_desk import Desk, text
from tests.broker.sites import ANSWER_S, Site
from tests.processes import Worker
from tests.servers import wait_until


def test_an_erased_document_is_nowhere_and_its_late_duplicate_stays_out(
    intake_desk: Desk, site: Site, worker: Worker
) -> None:
    one = text("erase-1")
    intake_desk.intake.accept([one])
    with intake_desk.relay():
        intake_desk.wait_for("done", "erase-1")
        wait_until("its result is there", lambda: site.states(["erase-1"]) == ["SUCCESS"], timeout_s=ANSWER_S)
        done = intake_desk.command("erase", "zendesk", "R-erase-1", "--yes", "--json")
        assert done.code == 0, done.err
        erased = done.rows[0]
        assert [erased[name] for name in ("tags", "intake", "results", "cached", "workers")] == [1, 1, 1, 1, 1]
        assert not site.tags("R-erase-1")
        assert worker.events("memory.forgot")[-1]["texts"] == "1"

        # The broker brings it again, past the intake as well as through it.
        late = site.client.send_task(
            TAG_TICKET, args=[dict(one.message)], task_id="erase-late", queue=QUEUE_OF_TASK[TAG_TICKET]
        )
        wait_until("it is answered", lambda: site.states([late.id]) == ["FAILURE"], timeout_s=ANSWER_S)
    [receipt] = intake_desk.intake.accept([text("erase-again", ref="R-erase-1")])
    assert receipt.outcome == "erased"
    assert "was erased" in str(late.result)
    assert not site.tags("R-erase-1")
    assert not site.is_dead("erase-late")
    assert intake_desk.command("status", "R-erase-1").code == 1
    # Were it remembered anywhere, of the refused one, the same text of somebody else would be answered from there.
    somebody_else = site.send(fields={"text": one.message["text"], "ref": "R-erase-2"})
    assert somebody_else.get(timeout=ANSWER_S)["cache"] == "none"
