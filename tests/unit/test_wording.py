"""Figures are said as people say them."""

import pytest

from tagging.wording import counted


@pytest.mark.parametrize(("n", "said"), [(0, "0 tags"), (1, "1 tag"), (2, "2 tags"), (1_204_313, "1,204,313 tags")])
def test_one_has_no_plural_and_thousands_are_set_apart(n: int, said: str) -> None:
    assert counted(n, "tag") == said
