"""Folders that take long to make, kept on disk: made once, moved into place in one step, verified each time.

What is in one is recorded with its SHA-256, so that a folder that was cut short or damaged is made anew and never read.
Several processes may make the same one at once: the first to finish wins, and the others find its work.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tagging.errors import ModelRefused
from workers.engines import heap
from workers.engines.checkpoint import sha256

RECORD: Final = "tagmill.json"

log = logging.getLogger(__name__)


def keep(
    target: Path, fill: Callable[[Path], None], *, fingerprint: str, what: str, about: Mapping[str, Any] | None = None
) -> Path:
    """`target`, with what `fill` writes into a folder; it is called only where that is not there yet, whole.

    Args:
        fingerprint: Of the model that it is made from; another one's folder does not count.
        what: What it is, for those who read that there is no room for it.
        about: Written to the record, for people.

    Raises:
        ModelRefused: It cannot be written there.
    """
    if is_intact(target, fingerprint):
        return target
    try:
        _make(target, fill, fingerprint, about or {})
    except OSError as error:
        raise ModelRefused(
            f"{target.parent}: cannot keep {what} there ({error.strerror or error})."
            " Give a folder that is writable and has room for one more copy of the weights."
        ) from error
    heap.give_back()
    log.info("model.kept folder=%s", target.name)
    return target


def is_intact(folder: Path, fingerprint: str) -> bool:
    """Whether the folder was made from the model of this fingerprint and holds every byte as it was written."""
    try:
        record = _read_record(folder)
        return record["fingerprint"] == fingerprint and all(
            sha256(folder / name) == digest for name, digest in record["sha256"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def fingerprint_of(folder: Path) -> str:
    """The fingerprint of the model that the kept folder was made from."""
    return str(_read_record(folder)["fingerprint"])


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write it as people read it, keys in order."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return record


def _make(target: Path, fill: Callable[[Path], None], fingerprint: str, about: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        log.warning("model.damaged folder=%s", target.name)
        _set_aside(target)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    try:
        fill(draft)
        digests = {path.name: sha256(path) for path in sorted(draft.iterdir())}
        write_json(draft / RECORD, {**about, "fingerprint": fingerprint, "sha256": digests})
        draft.chmod(0o755)
        draft.rename(target)
    except OSError:
        # Another process finished first: a folder with content cannot be replaced, and its content is ours.
        if not is_intact(target, fingerprint):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _set_aside(target: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=target.parent))
    try:
        target.replace(aside)
    except FileNotFoundError:
        pass  # another process was quicker
    finally:
        shutil.rmtree(aside, ignore_errors=True)
