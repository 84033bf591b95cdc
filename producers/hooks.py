"""``POST /hooks/{system}/{name}``: a ticketing system tells of a ticket, and it becomes rows of the intake.

Nothing else happens within the request, so that it is answered within the time that vendors allow. A system that sends
the same again is answered the same, and nothing is done twice: the same question about the same revision of a document
is accepted once, whatever the delivery is called, and so is what comes under the same delivery id.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final

import structlog
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from integrations.accounts import ACCOUNTS_FILE, Account, Accounts, refuse_unknown
from integrations.system import Event, Handshake, Hook, Ignored, Inbound, Incoming, Unreadable, Unverified
from ledger.intake import Submission
from producers.http.accepting import Acceptor
from producers.http.problems import Problem
from tagging.errors import SettingsError
from tagging.names import TASK_OF_KIND
from tagging.text import clean

log = structlog.get_logger()

_REF: Final = re.compile(r"[^\x00-\x1f\x7f]{1,256}")  # what a message may have
_SHOWN: Final = 40
"""Characters of a name that a stranger may have sent."""


@dataclass(frozen=True, slots=True)
class Door:
    """An account with the way in."""

    account: Account
    inbound: Inbound


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Takes webhooks."""

    doors: Mapping[str, Door]
    """By the account's name."""
    acceptor: Acceptor
    clock: Callable[[], float] = time.time
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many came to what, by system and one of a few words."""

    async def take(self, request: Request, system: str, name: str) -> Response:
        """Answer one webhook.

        Raises:
            Problem: It is not of this account, or cannot be read.
            StoreUnavailable: Nothing was accepted; whoever sent it sends it again.
        """
        door = self.doors.get(name)
        if door is None or door.account.system != system:
            log.warning("hook.unknown", system=system[:_SHOWN], account=name[:_SHOWN], known=",".join(self.doors))
            raise Problem(kind="not-found")
        hook = Hook(headers=dict(request.headers), body=await request.body(), received_at=self.clock())
        try:
            event = _checked(door.inbound.receive(hook))
        except Unverified as e:
            self._count(system, f"refused-{e.why}")
            log.warning("hook.refused", account=name, why=e.why)
            raise Problem(kind="unauthorized", detail="the request is not proven to come from this account") from None
        except Unreadable as e:
            self._count(system, "unreadable")
            log.warning("hook.unreadable", account=name, cause=str(e))
            raise Problem(kind="invalid-message", detail=str(e)) from None
        return await self._answer(door.account, event)

    async def _answer(self, account: Account, event: Event) -> Response:
        match event:
            case Handshake(answer=answer):
                self._count(account.system, "handshake")
                return JSONResponse(answer)
            case Ignored(why=why):
                return self._ignored(account, why)
            case Incoming(kind=kind) if kind not in account.kinds:
                return self._ignored(account, "kind")
            case Incoming(text=text) if not clean(text):
                return self._ignored(account, "empty")
            case Incoming():
                receipts = await self.acceptor.accept(submissions_of(account, event))
                outcomes = {receipt.outcome for receipt in receipts}
                self._count(account.system, "accepted" if "accepted" in outcomes else outcomes.pop())
                return JSONResponse({"tasks": [receipt.id for receipt in receipts]}, status_code=202)

    def _ignored(self, account: Account, why: str) -> Response:
        self._count(account.system, f"ignored-{why}")
        return JSONResponse({"ignored": why})

    def _count(self, system: str, outcome: str) -> None:
        self.outcomes[system, outcome] += 1


def _checked(event: Event) -> Event:
    """The event; a reference that no message may have is refused, since a shortened one is another document's."""
    if isinstance(event, Incoming) and not _REF.fullmatch(event.ref):
        raise Unreadable("the ticket's reference: expected 1 to 256 characters, and no control characters")
    return event


def submissions_of(account: Account, event: Incoming) -> list[Submission]:
    """What is asked about this ticket or comment: a message for each of the account's label sets.

    Each is known again by its revision, which is signed, and by its delivery id, for systems that have no revision.
    """
    return [_submission(account, event, label_set) for label_set in account.label_sets]


def _submission(account: Account, event: Incoming, label_set: str) -> Submission:
    asked = Submission.once(TASK_OF_KIND[event.kind], _message(account, event, label_set))
    return replace(asked, idempotency_key=f"{event.delivery_id}/{label_set}" if event.delivery_id else None)


def _message(account: Account, event: Incoming, label_set: str) -> dict[str, Any]:
    policy = account.write_back.get(label_set)
    write_back = {"write_back": {"system": account.name, "mode": policy.mode}} if policy is not None else {}
    return {
        "text": event.text,
        "label_set": label_set,
        "source": account.name,
        "ref": event.ref,
        "revision": event.revision,
        **write_back,
    }


def open_doors(accounts: Accounts, *, label_sets: Collection[str]) -> dict[str, Door]:
    """The way in of every account, whose label sets are among these.

    Raises:
        SettingsError: Names every account that cannot take webhooks, and why.
    """
    doors: dict[str, Door] = {}
    problems: list[str] = []
    for name, account in accounts.items():
        try:
            refuse_unknown(account, label_sets)
            doors[name] = Door(account, _inbound(account))
        except SettingsError as e:
            problems += [f"{ACCOUNTS_FILE}: {problem}" for problem in e.problems]
    if problems:
        raise SettingsError(problems)
    return doors


def _inbound(account: Account) -> Inbound:
    try:
        open_: Callable[[Account], Inbound] = import_module(f"integrations.{account.system}").inbound
    except (ImportError, AttributeError):
        raise SettingsError([f"{account.name}.system: there is no ticketing system {account.system!r}"]) from None
    return open_(account)


def router(hooks: Hooks) -> APIRouter:
    """The one route of all systems."""
    routes = APIRouter()

    @routes.post("/hooks/{system}/{name}", include_in_schema=False)
    async def hook(request: Request, system: str, name: str) -> Response:
        return await hooks.take(request, system, name)

    return routes
