"""Cached logits are bytes that only we can have written, and only finite."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ports import Logit
from workers.stores.logits import keepable, pack, unpack

float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.builds(Logit, float32, float32), min_size=1, max_size=20))
def test_what_was_packed_is_unpacked(logits):
    assert unpack(pack(logits)) == tuple(logits)


@given(st.binary(max_size=64))
def test_foreign_bytes_are_unknown_or_finite(value):
    logits = unpack(value)
    assert logits is None or keepable(logits)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01", id="no pair"),
        pytest.param(pack([Logit(1, 2)])[:-1], id="cut short"),
        pytest.param(pack([Logit(1, 2)]) + b"\0\0\0\0", id="half a pair too long"),
        pytest.param(b"\x02" + pack([Logit(1, 2)])[1:], id="another version"),
        pytest.param(b"\x01" + b"\x00\x00\xc0\x7f" * 2, id="NaN"),
    ],
)
def test_malformed_bytes_are_unknown(value):
    assert unpack(value) is None


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, 1e39])
def test_what_float32_cannot_hold_is_not_kept(x):
    assert not keepable([Logit(0.5, 0.5), Logit(0.5, x)])


def test_no_logits_at_all_are_not_kept():
    assert not keepable([])
