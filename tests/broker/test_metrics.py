"""A worker shows Prometheus what it did, and no text."""

from urllib.request import urlopen

from tests.broker.sites import ANSWER_S, CANARY, LABELS, Site
from tests.servers import HOST, free_port, wait_until


def test_a_worker_is_scraped(own_site: Site) -> None:
    port = free_port()

    def scraped() -> str:
        with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as reply:
            return str(reply.read(), "utf-8")

    with own_site.worker(metrics__port=port).running():
        for _ in range(2):
            own_site.send(fields={"text": f"asked twice {CANARY}"}).get(timeout=ANSWER_S)
        own_site.client.send_task("tagmill.tag_ticket", args=[{"text": CANARY}], queue="tag.tickets")
        wait_until(
            "the wrong message is counted",
            lambda: 'tagmill_messages_total{lane="live",outcome="dead"} 1.0' in scraped(),
            timeout_s=ANSWER_S,
        )
        text = scraped()
    lines = text.splitlines()
    assert 'tagmill_messages_total{lane="live",outcome="tagged"} 2.0' in lines
    assert f'tagmill_pairs_total{{answer="computed"}} {float(len(LABELS))}' in lines
    assert f'tagmill_pairs_total{{answer="local"}} {float(len(LABELS))}' in lines
    assert "tagmill_dead_letters_total 1.0" in lines
    assert not [word for word in (CANARY, *LABELS) if word in text]
