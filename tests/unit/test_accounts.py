"""Accounts come from ``accounts.toml``, their secrets from elsewhere, and every mistake is named at once."""

from pathlib import Path

import pytest

from integrations.accounts import Accounts
from tagging.errors import SettingsError

SHOP = """
[shop]
system = "zendesk"
base_url = "https://shop.example"
secrets = ["env:OLD", "env:NEW"]
token = "file:{token}"
label_sets = ["intent"]

[shop.write_back.intent]
mode = "apply"
top_k = 2
"""


def written(folder: Path, text: str) -> Path:
    (folder / "accounts.toml").write_text(text, encoding="utf-8")
    return folder


def test_no_file_is_no_account(tmp_path: Path) -> None:
    assert len(Accounts.load(tmp_path)) == 0


def test_secrets_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n", encoding="utf-8")
    text = SHOP.format(token=tmp_path / "token")
    shop = Accounts.load(written(tmp_path, text), environ={"OLD": "one", "NEW": "two"})["shop"]
    assert [s.get_secret_value() for s in shop.secrets] == ["one", "two"]
    assert shop.token is not None
    assert shop.token.get_secret_value() == "t0ken"
    assert shop.write_back["intent"].top_k == 2


def test_who_calls_nobody_needs_no_secret(tmp_path: Path) -> None:
    shop = Accounts.without_secrets(written(tmp_path, SHOP.format(token="/nowhere")))["shop"]
    assert (shop.secrets, shop.token, shop.write_back["intent"].mode) == ((), None, "apply")
    with pytest.raises(SettingsError, match=r"shop\.label_sets"):
        Accounts.without_secrets(written(tmp_path, '[shop]\nsystem = "zendesk"\ntoken = "env:NOT_SET"\n'))


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken", encoding="utf-8")
    text = SHOP.format(token=tmp_path / "token")
    shop = Accounts.load(written(tmp_path, text), environ={"OLD": "hush-1", "NEW": "hush-2"})["shop"]
    assert not any(secret in repr(shop) for secret in ("hush-1", "hush-2", "t0ken"))


def test_every_mistake_is_named_and_no_secret_with_it(tmp_path: Path) -> None:
    text = """
    lonely = 1
    [a]
    system = "github"
    secrets = ["s3cret"]
    label_sets = ["intent"]
    [b]
    system = "github"
    token = "env:MISSING"
    label_sets = []
    colour = "red"
    """
    with pytest.raises(SettingsError) as refused:
        Accounts.load(written(tmp_path, text), environ={})
    named = str(refused.value)
    for part in (
        "'lonely' stands outside",
        "a.secrets.0",
        "say env:VARIABLE",
        "MISSING is not set",
        "b.label_sets",
        "b.colour",
    ):
        assert part in named
    assert "s3cret" not in named


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "shop.system: missing"),
        (
            'system = "github"\nlabel_set = ["intent"]',
            "shop.label_set: there is no such field; did you mean label_sets?",
        ),
        ('system = "github"\nmax_per_minute = 0', "shop.max_per_minute: expected 1 or more"),
        ('system = "github"\nkinds = ["tickets"]', "shop.kinds.0: expected 'ticket' or 'comment'"),
        ('system = "github"\nallow_private = "perhaps"', "shop.allow_private: expected true or false"),
        (
            'system = "github"\nwrite_back.intent.top_n = 2',
            "shop.write_back.intent.top_n: there is no such field; did you mean top_k?",
        ),
        ('system = "github"\nwrite_back.intent.mode = "tell"', "intent.mode: expected 'apply' or 'suggest'"),
    ],
)
def test_a_mistake_is_told_by_file_account_field_and_what_was_expected(tmp_path: Path, line: str, told: str) -> None:
    labels = 'label_sets = ["intent"]\n'
    with pytest.raises(SettingsError) as refused:
        Accounts.load(written(tmp_path, f"[shop]\n{labels}{line}"), environ={})
    (problem,) = refused.value.problems
    assert problem.startswith(f"{tmp_path / 'accounts.toml'}: shop.")
    assert told in problem


def test_a_name_that_no_path_could_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"a shop\.name: expected a text that matches"):
        Accounts.load(written(tmp_path, '["a shop"]\nsystem = "github"\nlabel_sets = ["intent"]'), environ={})
