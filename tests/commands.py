"""The ``tagmill`` command as people run it: a process with an environment of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Tagmill:
    """Runs subcommands in one folder, with these settings."""

    folder: Path
    environ: Mapping[str, str]

    def __call__(self, *arguments: str, text: str = "") -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "tagmill", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=150,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TAGMILL_CONFIG_DIR": str(ROOT / "config"), **self.environ},
            check=False,
        )
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)
