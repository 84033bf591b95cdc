"""A database's URL is understood, or refused in words that do not show its password."""

import pytest

from ledger.database import open_database
from tagging.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://tagmill:hunter2@db/tagmill", "mysql is no database that we know"),
        ("postgresql+asyncpg://tagmill:hunter2@db/tagmill", "postgresql+asyncpg is no database that we know"),
        ("hunter2", "not the URL of a database"),
        ("", "not the URL of a database"),
        ("postgresql://tagmill:hunter2@db:port/tagmill", "not the URL of a database"),
        ("sqlite://", "in memory forgets everything"),
        ("sqlite:///:memory:", "in memory forgets everything"),
    ],
)
def test_refuses(url, said):
    with pytest.raises(SettingsError) as refused:
        open_database(url)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_reaches_postgresql_through_psycopg_and_hides_the_password(scheme):
    database = open_database(f"{scheme}://tagmill:hunter2@db/tagmill")
    assert str(database) == "postgresql+psycopg://tagmill:***@db/tagmill"
