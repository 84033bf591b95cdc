"""Everything that can go wrong with a name of its own.

    TagmillError
    ├── InvalidMessage       the message cannot be done as it is; parked with this text as the reason
    │   ├── UnknownLabelSet  no such label set; the text lists the known ones
    │   ├── UnsupportedVersion  written by a newer major version than this worker speaks
    │   └── DocumentErased   its document was erased; neither stored nor parked
    ├── SettingsError        the configuration is wrong; carries every problem at once
    ├── ModelRefused         the checkpoint cannot be served; says why and what to do
    ├── EngineError          the device failed; nothing of the pass was scored
    │   ├── DeviceOutOfMemory   it did not fit; a smaller pass may
    │   ├── EngineDied          the engine's process is gone
    │   └── NotFinite           the model answered NaN or Inf
    ├── WorkerCrashed        workers died while the message ran, again and again
    ├── EngineLost           the engine's process dies again and again; the worker has to stop
    ├── BrokerUnreachable    the queue cannot be reached; whether a message got there is not known
    ├── BrokerRefused        the broker is set up so that it would lose messages; says how to mend it
    ├── SourceRefused        a backfill cannot read its source as it was described; says what to do
    ├── SourceBroken         reading stopped in the midst of a source; what was read before stands
    ├── JobRefused           a backfill's job cannot be run or found as it was named; says what to do
    ├── OutputRefused        a backfill cannot write its output where or as it was told
    └── StoreUnavailable     a store that must not be skipped (the ledger) cannot be reached

The text of an error is read by people: it says what was expected, what came, and what to do. It never
contains customer text, since it ends up in results, logs and Flower.
"""

from collections.abc import Sequence


class TagmillError(Exception):
    """Base of every error of this project."""


class InvalidMessage(TagmillError):
    """The message cannot be done as it is; trying again would not help."""


class UnknownLabelSet(InvalidMessage):
    """The message names a label set that this worker does not know."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no label set {name!r}; this worker knows: {', '.join(known) or 'none'}")


class UnsupportedVersion(InvalidMessage):
    """The message was written by a newer major version of the contract."""


class DocumentErased(InvalidMessage):
    """The document was erased, and is not tagged again."""

    def __init__(self) -> None:
        super().__init__("the document was erased; it is not tagged again")


class SettingsError(TagmillError):
    """The configuration is wrong. ``problems`` holds every one, each with its remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ModelRefused(TagmillError):
    """The checkpoint cannot be served."""


class EngineError(TagmillError):
    """The device failed; nothing of the pass was scored."""


class DeviceOutOfMemory(EngineError):
    """The pass did not fit into the device's memory; a smaller one may."""


class EngineDied(EngineError):
    """The engine's process ended or was ended by the watchdog."""


class NotFinite(EngineError):
    """The model answered NaN or Inf for this text."""


class WorkerCrashed(TagmillError):
    """Workers died while this message ran, so often that it is taken for the cause."""


class EngineLost(TagmillError):
    """The engine's process died so often in a row that no text can be the cause; the worker has to stop."""


class StoreUnavailable(TagmillError):
    """A store that must not be skipped cannot be reached; the work has to wait."""


class BrokerRefused(TagmillError):
    """The broker is set up so that it would lose messages. The text says what was found, what is expected, and how."""


class BrokerUnreachable(TagmillError):
    """The broker cannot be reached; whether a message got there is not known."""


class SourceRefused(TagmillError):
    """A backfill's source cannot be read as it was described. The text says what was found, and what to do."""


class SourceBroken(TagmillError):
    """Reading stopped in the midst of a source: a cut-off file, a lost connection. What was read before stands."""


class OutputRefused(TagmillError):
    """The output of a backfill cannot be written there, or not in that format."""


class JobRefused(TagmillError):
    """A backfill's job is not there, is another one, or is being run by somebody else. The text says what to do."""
