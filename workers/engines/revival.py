"""An engine process that is started again after it died, so that a crash or a hang costs one call."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from tagging.errors import EngineDied, EngineError, EngineLost, ModelRefused
from workers.ports import Engine, Entailment, ModelInfo, Pair

log = structlog.get_logger()

MAX_DEATHS: Final = 16
"""In a row. A text that kills the process is found by halving, which takes a death for each halving of its batch."""


class RestartableEngine(Engine, Protocol):
    """An engine that can be dead."""

    @property
    def is_alive(self) -> bool:
        """Whether a call made now would find it running."""
        ...

    def restart(self) -> None:
        """End it, if it runs, and start it anew; returns once its model is loaded."""
        ...


class RevivedEngine:
    """The Engine contract over one that may die: the call that meets the death fails, the next one finds it up again.

    After ``max_deaths`` without an answer in between, every call raises ``EngineLost``: what kills it then is no text,
    and going on would only fill the dead letters.
    """

    def __init__(self, engine: RestartableEngine, *, max_deaths: int = MAX_DEATHS) -> None:
        self._engine = engine
        self._max_deaths = max_deaths
        self._deaths = 0
        self._closed = False
        self._lock = threading.Lock()

    @property
    def info(self) -> ModelInfo:
        return self._engine.info

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        """Logits of each pair, same order; see ``Engine``.

        Raises:
            EngineDied: It died now, or could not be started again; another call may find it well.
            EngineLost: It died too often in a row.
        """
        with self._lock:
            if self._deaths >= self._max_deaths:
                raise EngineLost(f"the engine died {self._deaths} times without an answer in between")
            try:
                self._revive()
                answer = self._engine.entail(pairs)
            except EngineDied as e:
                self._deaths += 1
                log.error("engine.died", deaths=self._deaths, limit=self._max_deaths, cause=str(e))
                raise
            self._deaths = 0
            return answer

    def close(self) -> None:
        """Free the device; a closed engine is not started again."""
        self._closed = True
        self._engine.close()

    def _revive(self) -> None:
        if self._closed or self._engine.is_alive:
            return
        try:
            self._engine.restart()
        except (ModelRefused, EngineError) as e:
            raise EngineDied(f"it could not be started again: {e}") from e
        log.warning("engine.restarted", deaths=self._deaths)
