"""A Celery pool that micro-batches.

Celery's own strategy, requests and consumer stay as they are, so ETA, expiry, revocation, rate limits, events and
prefetching are Celery's code; so is the end of each task, which runs through Celery's tracer with the outcome that its
batch computed. Only what lies between is ours: requests wait in a ``Batcher``, runner threads carry batches through the
``Pipeline``, and the hub thread finishes them.

Live and bulk work have batches of their own. Of each lane at most one batch is on the device and one is ready; a bulk
batch steps aside for a live one (``workers.turns``). Only the hub thread touches worker state, events and acks.
"""

import gc
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import structlog
from celery import Task
from celery.concurrency.base import BasePool
from celery.platforms import EX_FAILURE
from celery.worker import state as worker_state

from tagging.errors import EngineLost, StoreUnavailable, TagmillError
from tagging.names import QUEUE_OF_TASK, SENT_AT_HEADER, Lane, lane_of
from tagging.redaction import redacted
from tagging.settings import Settings
from workers.batching import BatchLimits
from workers.burying import DeadInARow
from workers.exits import Exit
from workers.gate import Gate
from workers.pipeline import Pipeline
from workers.requests import Request
from workers.results import BatchedRedisBackend
from workers.transport import acks_together
from workers.turns import Device
from workers.verdicts import Dead, Refused, Retry, Tagged, Verdict
from workers.watchdog import Pulse
from workers.work import Delivery, Work

log = structlog.get_logger()

T = TypeVar("T")

_RUNNERS: Final = 3  # of each lane: one batch recording, one on the device, one ready
_RUNNERS_END_S: Final = 5.0
_STORE_RETRY_S: Final = 1.0
_GC_THRESHOLDS: Final = (20_000, 20, 50)  # a batch makes thousands of small objects, none of them in cycles

_verdict: ContextVar[Verdict | None] = ContextVar("verdict", default=None)


class BatchApp(Protocol):
    """What the pool asks of the Celery app."""

    settings: Settings
    pulse: Pulse

    def build_pipeline(self) -> Pipeline:
        """Load the model and connect the stores; returns when the first batch can be taken."""
        ...


class BatchTask(Task):  # type: ignore[misc]  # celery ships no types
    """A task whose outcome was computed with its batch; the tracer calls ``run`` only to learn it."""

    Strategy = "workers.requests:strategy"
    Request = "workers.requests:Request"
    acks_late = True
    reject_on_worker_lost = True
    max_retries = None  # the pipeline decides: beyond retries.max_attempts the verdict is Dead
    throws = (TagmillError,)  # expected; logged without a traceback

    def __init__(self, name: str, *, backoff_s: float, backoff_max_s: float) -> None:
        self.name = name
        self.backoff_s = backoff_s
        self.backoff_max_s = backoff_max_s

    def run(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return or raise what the batch decided."""
        match _verdict.get():
            case Tagged(result=result):
                return result
            case Dead(cause=cause) | Refused(cause=cause):
                raise cause
            case Retry(cause=cause):
                raise self._retry(cause)
            case None:
                raise RuntimeError(f"{self.name} runs in batches: start the worker with `tagmill worker`")

    def _retry(self, cause: TagmillError) -> Exception:
        """Publish the message again, to be run after a while; Celery's exception says so to the tracer."""
        longest_s = min(self.backoff_max_s, self.backoff_s * 2**self.request.retries)
        retry: Exception = self.retry(
            exc=cause,
            # Full jitter, in whole seconds: delayed delivery on RabbitMQ refuses anything between 0 and 1.
            countdown=math.ceil(random.uniform(0, longest_s)),
            queue=QUEUE_OF_TASK[self.name],
            throw=False,
        )
        return retry

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """As Celery's, with the arguments redacted in what Flower and events show."""
        options.update(argsrepr=redacted(args or (), kwargs or {}), kwargsrepr="{}")
        return super().apply_async(args, kwargs, **options)


Outcome = tuple[int, Any, float]
"""What Celery's tracer returns: whether it failed, the result's repr or the exception, seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request on its way through the pool."""

    request: Request
    arrived_at: float
    trace: Callable[..., Outcome]
    finish: Callable[[Outcome], None]


class _Side:
    """What a lane has to itself: where its requests wait, and a place for one batch that is ready."""

    def __init__(self, lane: Lane, limits: BatchLimits) -> None:
        self.lane: Lane = lane
        self.gate: Gate[_Job] = Gate(limits)
        self.ready = threading.Lock()


class TaskPool(BasePool):  # type: ignore[misc]  # celery ships no types
    """One answer per message, none lost, none silent."""

    app: BatchApp

    def on_start(self) -> None:
        """Load the model, then let the consumer start: a worker that consumes is a worker that is ready."""
        settings = self.app.settings
        self._pipeline = self.app.build_pipeline()
        self._drain_s = settings.batching.drain_s
        limits = BatchLimits(
            max_messages=settings.batching.max_messages,
            max_tokens=settings.batching.max_tokens,
            max_wait_s=settings.batching.max_wait_ms / 1000,
        )
        self._sides: dict[Lane, _Side] = {"live": _Side("live", limits), "bulk": _Side("bulk", limits)}
        self._dead_in_a_row = DeadInARow(limit=settings.worker.max_dead_in_a_row)
        self._hub: Any = None
        self._to_finish: deque[Callable[[], object]] = deque()
        self._something_to_finish = threading.Event()
        self._in_flight = 0
        self._device = Device(bulk_every=settings.batching.bulk_every)
        self._stopping = threading.Event()
        self._runners = [
            threading.Thread(target=self._run, args=(side,), name=f"{side.lane}-{i}", daemon=True)
            for side in self._sides.values()
            for i in range(_RUNNERS)
        ]
        for runner in self._runners:
            runner.start()
        # What is loaded by now stays: the collector need not walk through it after every few batches.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        model = self._pipeline.model
        log.info("worker.ready", model=model.name, precision=model.precision, device=model.device)

    def register_with_event_loop(self, loop: Any) -> None:
        """Called on the hub thread at each connect."""
        self._hub = loop

    def on_apply(
        self, target: Callable[..., Outcome], *_args: Any, accept_callback: Any, callback: Any, **_options: Any
    ) -> None:
        """Take a request from Celery; hub thread."""
        request: Request = accept_callback.__self__
        self._in_flight += 1
        job = _Job(request, time.monotonic(), target, callback)
        self._sides[lane_of(request.type)].gate.put(
            job,
            now=job.arrived_at,
            size=self._pipeline.weigh(request.type, request.args, request.kwargs),
            # Whether it was the cause of what happened to its last batch is not known.
            alone=bool(request.delivery_info.get("redelivered") or request.request_dict.get("retries")),
        )

    def flush(self) -> None:
        """Called when the connection is lost, and at the start of a stop; hub thread, hub not looping.

        A graceful stop finishes what was fetched. Otherwise what has not started is forgotten: its delivery tags died
        with the connection and the broker delivers it again.
        """
        # 0 is a value here: the exit code of a plain stop.
        stops = worker_state.should_stop is not None and worker_state.should_stop is not False
        if stops and not worker_state.should_terminate:
            self._drain()
        dropped = sum(side.gate.clear() for side in self._sides.values())
        self._in_flight -= dropped
        if dropped:
            log.info("buffer.returned", n=dropped)

    def on_stop(self) -> None:
        """Let the runners go and end the engine."""
        self._stopping.set()
        for side in self._sides.values():
            side.gate.close()
        deadline = time.monotonic() + _RUNNERS_END_S
        for runner in self._runners:
            runner.join(max(0.0, deadline - time.monotonic()))
        self._finish_all()
        self._pipeline.close()

    on_terminate = on_stop

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """A text on the device cannot be called back; its answer is stored and nobody is hurt."""

    def _get_info(self) -> dict[str, Any]:
        model = self._pipeline.model
        return {
            **super()._get_info(),
            "waiting": sum(len(side.gate) for side in self._sides.values()),
            "in-flight": self._in_flight,
            "model": model.name,
            "device": model.device,
            "precision": model.precision,
        }

    def on_hub(self, callback: Callable[[], object]) -> None:
        """Have this done by the hub thread, in the order of asking; whatever it raises is logged."""
        # The hub keeps its callbacks in a set, whose order is chance; events of a task have an order.
        self._to_finish.append(callback)
        self._something_to_finish.set()
        if self._hub is not None:
            self._hub.call_soon(self._finish_all)

    def look_at(self, verdicts: Sequence[Verdict]) -> None:
        """End the worker where these make too many dead letters in a row; hub thread."""
        if self._dead_in_a_row.is_reached_by(verdicts) and not worker_state.should_terminate:
            log.error(
                "worker.buries",
                dead=self._dead_in_a_row.n,
                hint="it parked one message after another; see `tagmill dead list`, mend the cause, then requeue them",
            )
            worker_state.should_terminate = Exit.BURYING

    # Runner threads

    def _run(self, side: _Side) -> None:
        while True:
            side.ready.acquire()
            jobs = side.gate.take()
            if jobs is None:
                side.ready.release()
                return
            self._carry(jobs, side)

    def _carry(self, jobs: list[_Job], side: _Side) -> None:
        """Take a batch from the gate to its end. Entered with the ready slot held, which is given back early."""
        started_at = time.monotonic()
        jobs = self._still_wanted(jobs)
        self.on_hub(lambda: [job.request.on_accepted(os.getpid(), started_at) for job in jobs])
        deliveries = [_delivery(job, started_at) for job in jobs]
        try:
            verdicts = self._process(deliveries, side)
        except StoreUnavailable:
            self._hand_back(jobs)
        except EngineLost as e:
            log.error("worker.gives_up", cause=str(e))
            self._hand_back(jobs)
            self.on_hub(_end_worker)
        else:
            self._complete(jobs, verdicts, started_at)

    def _process(self, deliveries: Sequence[Delivery], side: _Side) -> list[Verdict]:
        """Verdicts for the deliveries, recorded.

        Raises:
            StoreUnavailable: The ledger is out of reach and the worker stops.
            EngineLost: The engine does not come back.
        """
        try:
            return self._through_the_device(deliveries, side)
        except (StoreUnavailable, EngineLost):
            raise
        except Exception as e:
            # A fault of ours must not cost a message: it is tried again, and parked when that does not help.
            log.exception("batch.failed", n=len(deliveries))
            return self._pipeline.give_up(deliveries, TagmillError(f"unexpected {type(e).__name__}"))

    def _through_the_device(self, deliveries: Sequence[Delivery], side: _Side) -> list[Verdict]:
        try:
            work = self._pipeline.prepare(deliveries)
            if on_device := work.came_back or work.needs_device:
                self._take_device(side)
        finally:
            side.ready.release()
        if work.came_back:
            return self._alone(work, side)
        if on_device:
            self._infer(work, side)
        self._pipeline.exchange(work)
        if work.needs_device:  # what other workers had promised did not come
            self._take_device(side)
            self._infer(work, side)
        return self._record(work)

    def _alone(self, work: Work, side: _Side) -> list[Verdict]:
        """Verdicts for a message that came back. Entered with the device taken, which is given back at the end.

        So no two of them are counted at a time, and a worker's death counts against the one that ran.
        """
        try:
            if (cause := self._with_ledger(lambda: self._pipeline.count(work))) is not None:
                verdicts = self._with_ledger(lambda: self._pipeline.bury(work.deliveries, cause))
            else:
                self._infer_alone(work)
                verdicts = self._record(work)
            self._with_ledger(lambda: self._pipeline.outlived(work))
        finally:
            self._give_device_back(side)
        return verdicts

    def _infer_alone(self, work: Work) -> None:
        try:
            self._pipeline.infer(work)
            self._pipeline.exchange(work)
            self._pipeline.infer(work)  # what other workers had promised and did not come
        except EngineLost:
            self._pipeline.outlived(work)  # a device that is broken is no message's fault
            raise

    def _take_device(self, side: _Side) -> None:
        self._device.take(side.lane)
        side.gate.device_busy(True)

    def _infer(self, work: Work, side: _Side) -> None:
        """Entered with the device taken, which is given back."""
        try:
            if side.lane == "live":
                self._pipeline.infer(work)
                return
            for _ in self._pipeline.turns(work):
                self._device.step_aside()
        finally:
            self._give_device_back(side)

    def _give_device_back(self, side: _Side) -> None:
        side.gate.device_busy(False)
        self._device.give_back()

    def _record(self, work: Work) -> list[Verdict]:
        """Store the batch.

        Raises:
            StoreUnavailable: The worker stops before the ledger is back.
        """
        return self._with_ledger(lambda: self._pipeline.record(work))

    def _with_ledger(self, step: Callable[[], T]) -> T:
        """What the step returns, tried for as long as it takes: meanwhile the buffer fills up and fetching stops.

        Raises:
            StoreUnavailable: The worker stops before the ledger is back.
        """
        while True:
            try:
                return step()
            except StoreUnavailable as e:
                log.error("ledger.unavailable", cause=str(e), retry_s=_STORE_RETRY_S)
                if self._stopping.wait(_STORE_RETRY_S):
                    raise

    def _complete(self, jobs: Sequence[_Job], verdicts: Sequence[Verdict], started_at: float) -> None:
        """End each task through Celery's tracer, its results written together; the hub thread does the rest."""
        done: list[tuple[_Job, Outcome]] = []
        undone: list[_Job] = []
        try:
            with self._results_together(jobs):
                for job, verdict in zip(jobs, verdicts, strict=True):
                    try:
                        done.append((job, _trace(job, verdict, started_at)))
                    except Exception:
                        # Its link, errback or retry could not be published: that must not cost its neighbours anything.
                        log.exception("request.not_traced", id=job.request.id)
                        undone.append(job)
        except Exception:
            log.exception("results.unavailable", n=len(jobs))
            self._hand_back(jobs)
            return
        if undone:
            self._hand_back(undone)
        self.on_hub(lambda: self._finish(done))
        self.on_hub(lambda: self.look_at(verdicts))

    @staticmethod
    def _results_together(jobs: Sequence[_Job]) -> AbstractContextManager[None]:
        backend = jobs[0].request.task.backend if jobs else None
        return backend.batch() if isinstance(backend, BatchedRedisBackend) else nullcontext()

    def _still_wanted(self, jobs: list[_Job]) -> list[_Job]:
        """Without those that were revoked or expired while they waited, which end on the hub thread."""
        withdrawn = [job for job in jobs if _is_withdrawn(job.request)]
        if withdrawn:
            self.on_hub(lambda: self._withdraw(withdrawn))
        return [job for job in jobs if job not in withdrawn]

    def _hand_back(self, jobs: Sequence[_Job]) -> None:
        self.on_hub(lambda: self._return(jobs))

    # Hub thread

    def _finish_all(self) -> None:
        self._something_to_finish.clear()
        while self._to_finish:
            self.app.pulse.beat()
            try:
                self._to_finish.popleft()()
            except Exception:
                log.exception("request.not_finished")

    def _finish(self, done: Sequence[tuple[_Job, Outcome]]) -> None:
        self._in_flight -= len(done)
        if not done:
            return
        with acks_together(done[0][0].request.message):
            for job, outcome in done:
                try:
                    job.finish(outcome)
                except Exception:
                    # The connection broke under the acknowledgement: the others have to be counted as finished too.
                    log.exception("request.not_finished", id=job.request.id)

    def _withdraw(self, jobs: Sequence[_Job]) -> None:
        self._in_flight -= len(jobs)
        for job in jobs:
            job.request.revoked()
            worker_state.task_ready(job.request)

    def _return(self, jobs: Sequence[_Job]) -> None:
        self._in_flight -= len(jobs)
        for job in jobs:
            worker_state.task_ready(job.request)
            job.request.reject(requeue=True)

    def _drain(self) -> None:
        """Finish what was fetched; the hub has halted, so its work is done here."""
        for side in self._sides.values():
            side.gate.hurry()
        deadline = time.monotonic() + self._drain_s
        while self._in_flight and not worker_state.should_terminate and time.monotonic() < deadline:
            self.app.pulse.beat()
            self._something_to_finish.wait(0.1)
            self._finish_all()


def _trace(job: _Job, verdict: Verdict, started_at: float) -> Outcome:
    """What Celery's tracer makes of the verdict: results, links, chords, retries, signals."""
    request = job.request
    token = _verdict.set(verdict)
    try:
        # The payload is decoded already: without a content type the tracer takes it as it is.
        failed, retval, _ = job.trace(request.type, request.id, request.request_dict, request.payload, None, None)
    finally:
        _verdict.reset(token)
    return failed, retval, time.monotonic() - started_at


def _end_worker() -> None:
    """End this process with an error, so that its supervisor starts another; the broker keeps the messages."""
    worker_state.should_terminate = EX_FAILURE


def _is_withdrawn(request: Request) -> bool:
    return request.id in worker_state.revoked or (
        request.expires is not None and datetime.now(request.expires.tzinfo) >= request.expires
    )


def _delivery(job: _Job, started_at: float) -> Delivery:
    request = job.request
    sent_at = request.request_dict.get(SENT_AT_HEADER)
    buffered_s = started_at - job.arrived_at
    on_the_way_s = max(0.0, time.time() - sent_at) if isinstance(sent_at, int | float) else buffered_s
    return Delivery(
        id=request.id,
        task=request.type,  # not its name, which a sender may replace by a "shadow"
        queue=str(request.delivery_info.get("routing_key") or ""),
        args=request.args,
        kwargs=request.kwargs,
        attempts=int(request.request_dict.get("retries") or 0),
        came_back=bool(request.delivery_info.get("redelivered")),
        queued_ms=1000 * on_the_way_s,
    )
