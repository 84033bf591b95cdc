"""The routes: send, wait, look up, follow."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from ledger.intake import FINISHED, Intake, IntakeRow, Receipt, Submission
from ledger.keys import ApiKey
from ledger.tags import TagLedger
from producers.http.accepting import Acceptor
from producers.http.access import Doorkeeper
from producers.http.load import Tide
from producers.http.problems import Problem
from producers.http.reading import Reader, checked_key
from producers.http.waiting import Done, Waiters

_FOLLOW_S: Final = 300.0
"""A caller that follows longer follows anew."""
_SIGN_OF_LIFE_S: Final = 15.0
_PREFER: Final = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")

View = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """What the routes are made of."""

    doorkeeper: Doorkeeper
    reader: Reader
    acceptor: Acceptor
    waiters: Waiters
    tide: Tide
    intake: Intake
    tags: TagLedger
    wait_s: float

    # Send

    async def send(self, request: Request) -> Response:
        """Accept one message, or a list of them."""
        key = await self.doorkeeper.admit(request, "enqueue")
        name = checked_key(request.headers.get("idempotency-key"))
        self.tide.admit()
        submissions = self.reader.many(await request.body(), key, idempotency_key=name)
        receipts = await self._accept(submissions)
        taken = [
            {"id": receipt.id, "outcome": receipt.outcome, "location": _location(receipt.id)} for receipt in receipts
        ]
        headers = {"Location": _location(receipts[0].id)} if len(receipts) == 1 else {}
        return JSONResponse({"tasks": taken}, status_code=202, headers=headers)

    async def tag(self, request: Request) -> Response:
        """Accept one message and wait for its answer."""
        key = await self.doorkeeper.admit(request, "enqueue")
        name = checked_key(request.headers.get("idempotency-key"))
        self.tide.admit()
        submission = self.reader.one(await request.body(), key, idempotency_key=name)
        async with self.waiters.finished(submission.id) as done:
            [receipt] = await self._accept([submission])
            if receipt.id == submission.id:
                return await self._awaited(receipt.id, done, key, wait_s=self._patience_s(request))
        async with self.waiters.finished(receipt.id) as done:  # it was sent before, under another id
            return await self._awaited(receipt.id, done, key, wait_s=self._patience_s(request))

    async def _accept(self, submissions: Sequence[Submission]) -> list[Receipt]:
        receipts = await self.acceptor.accept(submissions)
        self.tide.took(sum(receipt.outcome == "accepted" for receipt in receipts))
        for submission, receipt in zip(submissions, receipts, strict=True):
            if receipt.outcome == "erased":
                raise Problem(kind="erased", detail="it is not tagged again", chinese="该文档不会再次打标签")
            if receipt.outcome == "known" and not await self._is_same(submission, receipt.id):
                raise Problem(
                    kind="key-reused",
                    detail=f"it stands for the task {receipt.id}; send another key with another message",
                    chinese=f"它对应任务 {receipt.id}；不同的消息请使用不同的键",
                )
        return receipts

    async def _is_same(self, submission: Submission, id_: str) -> bool:
        stored = await run_in_threadpool(self.intake.message, id_)
        return stored is None or stored == json.loads(json.dumps(submission.message))

    async def _awaited(self, id_: str, done: Done, key: ApiKey, *, wait_s: float) -> Response:
        """The answer, if it comes in time; else where to look for it."""
        try:
            answer = await asyncio.wait_for(asyncio.shield(done), wait_s)
        except TimeoutError:
            headers = {"Location": _location(id_), "Retry-After": "1"}
            return JSONResponse(await self._view(id_, key), status_code=202, headers=headers)
        answer = answer or await self._looked_up(id_, key)
        return JSONResponse(answer, headers={"Content-Location": _location(id_)})

    async def _looked_up(self, id_: str, key: ApiKey) -> Any:
        """The answer of a task that has ended.

        Raises:
            Problem: It has none: it was parked.
        """
        view = await self._view(id_, key)
        if view["answer"] is None:
            raise Problem(
                kind="not-tagged",
                detail=f"{view['state']}: {view['reason'] or 'no reason was kept'}",
                members={"task": view},
            )
        return view["answer"]

    def _patience_s(self, request: Request) -> float:
        asked = _PREFER.search(request.headers.get("prefer", ""))
        return min(self.wait_s, float(asked[1])) if asked else self.wait_s

    # Look up

    async def look_up(self, request: Request, id_: str) -> Response:
        """What became of a task."""
        key = await self.doorkeeper.admit(request, "read")
        return JSONResponse(await self._view(id_, key))

    async def ticket(self, request: Request, source: str, ref: str) -> Response:
        """The tags that stand for a document, and every message about it that is still known."""
        key = await self.doorkeeper.admit(request, "read")
        if key.source is not None and key.source != source:
            raise _nothing()
        standing = await run_in_threadpool(self.tags.by_ref, ref, source)
        history = await run_in_threadpool(self.intake.by_ref, ref, source)
        if not standing and not history:
            raise _nothing()
        return JSONResponse(
            {
                "source": source,
                "ref": ref,
                "tags": [row.answer for row in standing],
                "history": [_shown(row) for row in history],
            }
        )

    async def follow(self, request: Request, id_: str) -> Response:
        """What becomes of a task, as server-sent events."""
        key = await self.doorkeeper.admit(request, "read")
        view = await self._view(id_, key)
        return StreamingResponse(self._events(view, key), media_type="text/event-stream")

    async def _events(self, view: View, key: ApiKey) -> AsyncIterator[str]:
        yield _event("state", view)
        if view["state"] in FINISHED:
            return
        async with self.waiters.finished(view["id"]) as done:
            for _ in range(int(_FOLLOW_S / _SIGN_OF_LIFE_S)):
                ended, _ = await asyncio.wait([done], timeout=_SIGN_OF_LIFE_S)
                if ended:
                    yield _event("state", await self._view(view["id"], key))
                    return
                yield ": waiting\n\n"

    async def _view(self, id_: str, key: ApiKey) -> View:
        """What is known of a task that this key may see.

        Raises:
            Problem: Nothing is.
        """
        row = await run_in_threadpool(self.intake.get, id_)
        if row is None or (key.source is not None and row.source != key.source):
            raise _nothing()
        answer = await self._answer(row) if row.state in ("done", "superseded") else None
        return {**_shown(row), "answer": answer}

    async def _answer(self, row: IntakeRow) -> Any:
        """What was answered to this task; from the ledger where the results backend has forgotten."""
        if (result := await self.waiters.result(row.id)) is not None:
            return result
        rows = await run_in_threadpool(self.tags.by_id, row.id)
        return rows[0].answer if rows else None


def router(tasks: Tasks) -> APIRouter:
    """The routes under ``/v1``."""
    routes = APIRouter(prefix="/v1")

    @routes.post("/tasks", status_code=202, summary="Accept one message or a list of them")
    async def send(request: Request) -> Response:
        return await tasks.send(request)

    @routes.post("/tags", summary="Accept a message and wait for its tags")
    async def tag(request: Request) -> Response:
        return await tasks.tag(request)

    @routes.get("/tasks/{id}", summary="What became of a task")
    async def look_up(request: Request, id: str) -> Response:  # noqa: A002  # the parameter's name in the path
        return await tasks.look_up(request, id)

    @routes.get("/tasks/{id}/events", summary="What becomes of a task, as server-sent events")
    async def follow(request: Request, id: str) -> Response:  # noqa: A002  # the parameter's name in the path
        return await tasks.follow(request, id)

    @routes.get("/tickets/{source}/{ref:path}", summary="The tags that stand for a document, with its history")
    async def ticket(request: Request, source: str, ref: str) -> Response:
        return await tasks.ticket(request, source, ref)

    return routes


def _shown(row: IntakeRow) -> View:
    return {
        "id": row.id,
        "state": row.state,
        "source": row.source,
        "ref": row.ref,
        "revision": row.revision,
        "reason": row.reason,
        "accepted_at": row.accepted_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
    }


def _location(id_: str) -> str:
    return f"/v1/tasks/{id_}"


def _event(name: str, value: View) -> str:
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"


def _nothing() -> Problem:
    return Problem(kind="not-found")
