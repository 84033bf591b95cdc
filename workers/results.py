"""Celery's Redis results backend, with the answers of a batch written in one pipeline.

Keys, values and channels are those of the stock backend, so that any client reads them with plain ``AsyncResult``.
Configured as ``workers.results:BatchedRedisBackend+redis://…``, which ``workers.app`` does by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from celery import states
from celery.backends.redis import RedisBackend


class BatchedRedisBackend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Holds successes back inside ``batch`` and writes them together when it ends. One instance serves one thread."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._batch: dict[str, bytes] | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Results stored inside are written when the block ends, in one read and one write.

        Raises:
            redis.RedisError: The retries of ``result_backend_transport_options`` were in vain; nothing may be acked.
        """
        self._batch = {}
        try:
            yield
            waiting, self._batch = self._batch, None
            if waiting:
                self.ensure(self._write, (waiting,))
        finally:
            self._batch = None

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        if self._batch is None or state != states.SUCCESS:
            return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        self._batch[self.get_key_for_task(task_id)] = self._fast_encode(meta)
        return result

    def _fast_encode(self, meta: dict[str, Any]) -> bytes:
        """The stock backend's JSON, made faster; a value that is no plain JSON takes the stock way."""
        try:
            return orjson.dumps(meta)
        except TypeError:
            encoded: str | bytes = self.encode(meta)
            return encoded.encode() if isinstance(encoded, str) else encoded

    def _write(self, waiting: dict[str, bytes]) -> None:
        keys = list(waiting)
        known = dict(zip(keys, self.client.mget(keys), strict=True))
        with self.client.pipeline(transaction=False) as pipe:
            for key, value in waiting.items():
                if self._is_success(known[key]):
                    continue  # as the stock backend: a success that is stored stands
                pipe.set(key, value, ex=self.expires or None)
                pipe.publish(key, value)
            pipe.execute()

    def _is_success(self, stored: Any) -> bool:
        return stored is not None and self.decode_result(stored)["status"] == states.SUCCESS
