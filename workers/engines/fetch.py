"""Downloading a model of the catalogue from ModelScope, once, and knowing ever after that it is still that model.

A branch of the hub moves, and a directory on disk rots. `fetch` therefore records the SHA-256 of every file that
decides an answer, whatever the revision was called; `verified_revision` holds the directory against it at each load.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tagging.errors import ModelRefused
from workers.engines.checkpoint import OPTIONAL, REQUIRED, WEIGHTS, Checkpoint, read_checkpoint

MANIFEST = "tagmill-manifest.json"
WANTED = (*REQUIRED, *OPTIONAL, *WEIGHTS, "README.md", "LICENSE")  # never code

Download = Callable[[str, str, Path], None]  # repository, revision, where to

log = logging.getLogger(__name__)


class Manifest(BaseModel):
    """What was fetched: kept beside the files it describes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    revision: str  # as it was asked for: a tag, a commit, or a branch that has moved on since
    fingerprint: str
    fetched_at: datetime
    sha256: dict[str, str]

    @property
    def shown_revision(self) -> str:
        """The revision together with what was really in it."""
        return f"{self.revision}@{self.fingerprint[:12]}"


def fetch(
    name: str,
    source: str,
    *,
    models_dir: Path,
    revision: str,
    accept_change: bool = False,
    download: Download | None = None,
) -> Manifest:
    """Download `source` into `models_dir`/`name` and record what came.

    Args:
        revision: A tag or commit; a branch, too, but then only the record says what it was.
        accept_change: Replace a model whose content differs although the revision has the same name.

    Raises:
        ModelRefused: The download failed or is no checkpoint, or the revision's content has changed.
    """
    target = models_dir / name
    draft = models_dir / f".fetching-{name}"  # kept when it fails, so that the next attempt resumes
    draft.mkdir(parents=True, exist_ok=True)
    _download(download or from_modelscope, source, revision, draft)
    manifest = _record(read_checkpoint(draft), source, revision)
    known = read_manifest(target)
    if known and known.revision == revision and known.sha256 != manifest.sha256 and not accept_change:
        changed = sorted(dict(known.sha256.items() ^ manifest.sha256.items()))
        raise ModelRefused(
            f"{name}: revision {revision!r} of {source} is not what it was on {known.fetched_at:%Y-%m-%d}:"
            f" {', '.join(changed)} changed. If you expect that, fetch again with --accept-change."
        )
    (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _replace(draft, target)
    log.info("model.fetched name=%s source=%s revision=%s", name, source, manifest.shown_revision)
    return manifest


def from_modelscope(source: str, revision: str, directory: Path) -> None:
    """Download with ModelScope's own client. A local directory is named, or it would serve any cached revision."""
    from modelscope_hub.compat.snapshot_download import snapshot_download

    snapshot_download(source, revision=revision, local_dir=str(directory), allow_patterns=list(WANTED))


def read_manifest(directory: Path) -> Manifest | None:
    """The record beside a fetched model, None where it was not fetched by us.

    Raises:
        ModelRefused: There is one, and it cannot be read.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{path}: unreadable. Fetch the model again.") from error


def verified_revision(checkpoint: Checkpoint) -> str:
    """The revision of a checkpoint whose files are those that were fetched; `local` where nothing was recorded.

    Raises:
        ModelRefused: A file was changed, added or removed since.
    """
    manifest = read_manifest(checkpoint.directory)
    if manifest is None:
        return "local"
    changed = sorted(dict(manifest.sha256.items() ^ checkpoint.digests.items()))
    if changed:
        raise ModelRefused(
            f"{checkpoint.directory}: {', '.join(changed)} differ from what was fetched on"
            f" {manifest.fetched_at:%Y-%m-%d} (revision {manifest.revision}). Remove the folder and fetch it again."
        )
    return manifest.shown_revision


def _download(download: Download, source: str, revision: str, draft: Path) -> None:
    try:
        download(source, revision, draft)
    except ImportError as error:
        raise ModelRefused("fetching models needs the package modelscope-hub: pip install modelscope-hub.") from error
    except Exception as error:  # the hub's client raises a dozen kinds, requests' and its own
        reason = str(error).strip().partition("\n")[0]
        raise ModelRefused(
            f"{source} at revision {revision!r} could not be fetched ({type(error).__name__}: {reason})."
            " Check the network and the revision and run the command again; it resumes."
        ) from error


def _record(checkpoint: Checkpoint, source: str, revision: str) -> Manifest:
    return Manifest(
        source=source,
        revision=revision,
        fingerprint=checkpoint.fingerprint,
        fetched_at=datetime.now(UTC),
        sha256=dict(checkpoint.digests),
    )


def _replace(draft: Path, target: Path) -> None:
    old = target.with_name(f".replaced-{target.name}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)
