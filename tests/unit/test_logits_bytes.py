"""Cached logits are records that only we can have written, and only finite."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ports import Logit, TextKey
from workers.stores.logits import keepable, pack, pack_of, unpack, unpack_of

A, B = b"aaaaaaaa", b"bbbbbbbb"
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
pairs = st.dictionaries(st.binary(min_size=8, max_size=8), st.builds(Logit, float32, float32), max_size=20)


@given(pairs)
def test_what_was_packed_is_unpacked(known):
    assert unpack(pack(known), known) == known


@given(pairs, pairs)
def test_what_is_packed_behind_adds_to_what_was_there(earlier, later):
    assert unpack(pack(earlier) + pack(later), {**earlier, **later}) == {**earlier, **later}


@given(pairs)
def test_what_was_packed_of_a_text_is_unpacked_for_it(known):
    assert unpack_of(TextKey("m", "t"), pack_of(TextKey("m", "t"), known), known) == known


@pytest.mark.parametrize("other", [TextKey("m2", "t"), TextKey("m", "t2"), TextKey("mt", ""), TextKey("", "mt")])
def test_what_was_packed_of_another_text_or_model_is_unknown(other):
    assert unpack_of(TextKey("m", "t"), pack_of(other, {A: Logit(1, 2)}), [A]) == {}


def test_what_stands_in_the_ledger_keeps_its_form():
    packed = pack_of(TextKey("fingerprint:float32", "0" * 32), {A: Logit(1.5, -2.0)})
    assert packed.hex() == "3986c1df39d3e6dc7cc2d9829634278c61616161616161610000c03f000000c0"


@given(st.binary(max_size=64), st.lists(st.binary(min_size=8, max_size=8)))
def test_foreign_bytes_are_unknown_or_finite(value, wanted):
    assert all(map(keepable, unpack(value, wanted).values()))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(pack({A: Logit(1, 2)})[:-1], id="cut short"),
        pytest.param(pack({A: Logit(1, 2)}) + b"\0", id="too long"),
        pytest.param(A + b"\x00\x00\xc0\x7f" * 2, id="NaN"),
    ],
)
def test_malformed_bytes_are_unknown(value):
    assert unpack(value, [A]) == {}


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, 1e39])
def test_what_float32_cannot_hold_is_not_kept(x):
    assert unpack(pack({A: Logit(0.5, x), B: Logit(0.5, 0.5)}), [A, B]) == {B: Logit(0.5, 0.5)}
