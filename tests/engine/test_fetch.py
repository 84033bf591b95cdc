"""A fetched model is recorded byte by byte, and is refused when it is no longer what was recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tagging.errors import ModelRefused
from tests.engine.checkpoints import VARIANTS, make_checkpoint
from workers.engines.build import build_engine
from workers.engines.checkpoint import read_checkpoint
from workers.engines.fetch import MANIFEST, Manifest, fetch, read_manifest, verified_revision

SOURCE = "iic/some-model"


class Hub:
    """A hub with one repository, and what was asked of it."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.asked: list[tuple[str, str]] = []
        self.broken: Exception | None = None

    def download(self, source: str, revision: str, directory: Path) -> None:
        self.asked.append((source, revision))
        names = sorted(path.name for path in self.repository.iterdir())
        for name in names[: 2 if self.broken else None]:
            shutil.copyfile(self.repository / name, directory / name)
        if self.broken:
            raise self.broken


@pytest.fixture
def hub(checkpoint_dir: Callable[[str], Path], tmp_path: Path) -> Hub:
    return Hub(Path(shutil.copytree(checkpoint_dir("plain"), tmp_path / "hub")))


def fetched(hub: Hub, tmp_path: Path, *, revision: str = "v1.0", accept_change: bool = False) -> Manifest:
    return fetch(
        "base",
        SOURCE,
        models_dir=tmp_path / "models",
        revision=revision,
        accept_change=accept_change,
        download=hub.download,
    )


def model(tmp_path: Path) -> Path:
    return tmp_path / "models" / "base"


def moved(hub: Hub) -> None:
    """The repository's branch points at other weights."""
    shutil.rmtree(hub.repository)
    make_checkpoint(hub.repository, replace(VARIANTS["plain"], seed=9))


def test_the_revision_asked_for_is_recorded_with_what_was_in_it(hub: Hub, tmp_path: Path) -> None:
    manifest = fetched(hub, tmp_path)
    checkpoint = read_checkpoint(model(tmp_path))
    assert hub.asked == [(SOURCE, "v1.0")]
    assert manifest == read_manifest(model(tmp_path))
    assert manifest.sha256 == dict(checkpoint.digests)
    assert verified_revision(checkpoint) == manifest.shown_revision == f"v1.0@{checkpoint.fingerprint[:12]}"


def test_a_directory_that_nobody_fetched_is_local(hub: Hub) -> None:
    assert verified_revision(read_checkpoint(hub.repository)) == "local"


@pytest.mark.parametrize("name", ["vocab.txt", "pytorch_model.bin", "config.json"])
def test_a_changed_file_is_refused_by_name(hub: Hub, tmp_path: Path, name: str) -> None:
    fetched(hub, tmp_path)
    path = model(tmp_path) / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"512", b"511") if name == "config.json" else content + b"\n")
    with pytest.raises(ModelRefused, match=f"{name} differ"):
        verified_revision(read_checkpoint(model(tmp_path)))


@pytest.mark.parametrize("weights", ["bin", "safetensors"])
def test_a_model_with_one_flipped_bit_is_not_loaded(tmp_path: Path, weights: str) -> None:
    hub = Hub(make_checkpoint(tmp_path / "hub", replace(VARIANTS["plain"], weights=weights)))
    fetched(hub, tmp_path)
    path = read_checkpoint(model(tmp_path)).weights
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match=f"{path.name} differ"):
        build_engine(str(model(tmp_path)), in_process=True, check=False, cache_dir=tmp_path / "cache")


def test_an_added_file_that_decides_answers_is_refused(hub: Hub, tmp_path: Path) -> None:
    fetched(hub, tmp_path)
    (model(tmp_path) / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(ModelRefused, match="tokenizer_config"):
        verified_revision(read_checkpoint(model(tmp_path)))


def test_a_damaged_record_is_refused(hub: Hub, tmp_path: Path) -> None:
    fetched(hub, tmp_path)
    (model(tmp_path) / MANIFEST).write_text("{}")
    with pytest.raises(ModelRefused, match="Fetch the model again"):
        verified_revision(read_checkpoint(model(tmp_path)))


def test_a_branch_that_moved_is_refused_and_the_old_model_stays(hub: Hub, tmp_path: Path) -> None:
    first = fetched(hub, tmp_path, revision="master")
    moved(hub)
    with pytest.raises(ModelRefused, match=r"pytorch_model\.bin changed.*--accept-change"):
        fetched(hub, tmp_path, revision="master")
    assert verified_revision(read_checkpoint(model(tmp_path))) == first.shown_revision


def test_a_change_can_be_accepted(hub: Hub, tmp_path: Path) -> None:
    first = fetched(hub, tmp_path, revision="master")
    moved(hub)
    second = fetched(hub, tmp_path, revision="master", accept_change=True)
    assert second.fingerprint != first.fingerprint
    assert verified_revision(read_checkpoint(model(tmp_path))) == second.shown_revision


def test_another_revision_replaces_the_first(hub: Hub, tmp_path: Path) -> None:
    fetched(hub, tmp_path)
    moved(hub)
    assert fetched(hub, tmp_path, revision="v2.0").shown_revision.startswith("v2.0@")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["base"]


def test_a_download_that_fails_leaves_no_model_and_resumes_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.broken = ConnectionError("no route to host\ntrace")
    with pytest.raises(ModelRefused, match=r"ConnectionError: no route to host\).*resumes"):
        fetched(hub, tmp_path)
    assert not model(tmp_path).exists()
    assert len(list((tmp_path / "models" / ".fetching-base").iterdir())) == 2
    hub.broken = None
    fetched(hub, tmp_path)
    assert model(tmp_path).exists()


def test_a_repository_that_is_no_checkpoint_is_refused(hub: Hub, tmp_path: Path) -> None:
    (hub.repository / "vocab.txt").unlink()
    with pytest.raises(ModelRefused, match=r"missing vocab\.txt"):
        fetched(hub, tmp_path)
    assert not model(tmp_path).exists()
