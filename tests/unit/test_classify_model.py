"""``tagmill classify`` looks its model up where a worker does."""

import os
import subprocess
import sys
from pathlib import Path


def test_reads_the_catalogue_of_the_configuration_folder(tmp_path: Path) -> None:
    # As in an image, where the package and config/ lie apart.
    (tmp_path / "labels").mkdir()
    (tmp_path / "models.toml").write_text("")
    ended = subprocess.run(
        [sys.executable, "-m", "tagmill", "classify", "-m", "demo"],
        input="{}",
        env={**os.environ, "TAGMILL_CONFIG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "the catalogue knows: ." in ended.stderr
