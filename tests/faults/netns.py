"""A network of its own for a worker, whose packets can be dropped without a word to either end."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

OURS, THEIRS = "10.213.7.1", "10.213.7.2"
"""This machine and the worker, on a link of two addresses."""


class Link:
    """The only way between a namespace and this machine."""

    def __init__(self) -> None:
        name = uuid4().hex[:6]
        self._here, self._there, self.namespace = f"tmh{name}", f"tmt{name}", f"tagmill-{name}"

    def enter(self, command: list[str]) -> list[str]:
        """The command, run behind the link."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def lead_out(self) -> None:
        """Let it be the way to every other address as well."""
        _run("ip", "-n", self.namespace, "route", "add", "default", "via", OURS)

    def drop(self) -> None:
        """Lose every packet, both ways: a queue without room takes none."""
        _run("tc", "qdisc", "add", "dev", self._here, "root", "pfifo", "limit", "0")
        _run(
            "ip",
            "netns",
            "exec",
            self.namespace,
            "tc",
            "qdisc",
            "add",
            "dev",
            self._there,
            "root",
            "pfifo",
            "limit",
            "0",
        )

    def heal(self) -> None:
        """Let packets pass again."""
        _run("tc", "qdisc", "del", "dev", self._here, "root")
        _run("ip", "netns", "exec", self.namespace, "tc", "qdisc", "del", "dev", self._there, "root")

    def make(self) -> None:
        """Set it up.

        Raises:
            CalledProcessError: This user, or this kernel, may not.
        """
        _run("ip", "netns", "add", self.namespace)
        _run("ip", "link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.namespace)
        _run("ip", "addr", "add", f"{OURS}/30", "dev", self._here)
        _run("ip", "link", "set", self._here, "up")
        for words in (("addr", "add", f"{THEIRS}/30", "dev", self._there), ("link", "set", self._there, "up")):
            _run("ip", "-n", self.namespace, *words)
        _run("ip", "-n", self.namespace, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Take down what there is of it."""
        subprocess.run(["ip", "link", "del", self._here], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)


@contextmanager
def linked() -> Iterator[Link]:
    """A namespace behind a link; the test is skipped where this user may not make one."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("a network namespace needs root, ip and tc (iproute2)")
    link = Link()
    try:
        try:
            link.make()
        except subprocess.CalledProcessError as e:
            pytest.skip(f"no network namespace here: {e.stderr.decode().strip()}")
        yield link
    finally:
        link.remove()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
