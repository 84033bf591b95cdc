"""A message becomes a task with nothing left to be wrong, or an InvalidMessage that a person understands."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.errors import InvalidMessage, UnknownLabelSet, UnsupportedVersion
from tagging.labels import LabelBook, LabelSet, Policy
from tagging.long_text import LongText
from tagging.messages import MAX_TEXT_CHARS, Decoder, Limits, TagTask, body_of, check_template, json_schemas
from tagging.names import TAG_COMMENT, TAG_TICKET

SUPPORT = LabelSet(
    name="support",
    labels=("billing", "login"),
    multi_label=True,
    template="This is about {}.",
    policy=Policy(apply_at=0.9),
)
REPORTS = LabelSet(name="reports", labels=("billing", "login"), long_text=LongText("mean", 32))
DECODER = Decoder(book=LabelBook([SUPPORT, REPORTS]), model="demo", default_template="{}", limits=Limits(max_items=3))
GOOD: dict[str, Any] = {"text": "charged twice", "labels": ["billing", "login"]}


def decoded(task: str = TAG_TICKET, **changes: Any) -> TagTask:
    return DECODER.one(task, {**GOOD, **changes}, task_id="t-1")


def refused(**changes: Any) -> str:
    with pytest.raises(InvalidMessage) as error:
        decoded(**changes)
    return str(error.value)


def test_what_is_left_out_is_filled_in() -> None:
    task = decoded()
    assert (task.id, task.ref, task.source, task.kind, task.revision) == ("t-1", "t-1", "api", "ticket", 0)
    assert (task.template, task.multi_label, task.label_set) == ("{}", False, None)


def test_a_label_set_brings_its_labels_template_and_policy() -> None:
    task = decoded(labels=None, label_set="support")
    assert (task.labels, task.multi_label, task.policy.apply_at) == (("billing", "login"), True, 0.9)
    assert task.hypotheses == ("This is about billing.", "This is about login.")


def test_the_message_overrides_its_label_set() -> None:
    task = decoded(labels=None, label_set="support", multi_label=False, template="{}?")
    assert (task.multi_label, task.template) == (False, "{}?")


def test_long_texts_are_truncated_unless_the_message_or_its_label_set_says_otherwise() -> None:
    assert decoded().long_text == LongText("truncate", 64)
    assert decoded(long_text="max").long_text == LongText("max", 64)
    assert decoded(labels=None, label_set="reports").long_text == LongText("mean", 32)
    assert decoded(labels=None, label_set="reports", overlap=0).long_text == LongText("mean", 0)
    assert decoded(labels=None, label_set="reports", long_text="max").long_text == LongText("max", 32)


def test_an_overlap_makes_no_difference_where_texts_are_truncated() -> None:
    assert decoded(overlap=8).long_text == decoded().long_text


@pytest.mark.parametrize(
    ("field", "value"), [("long_text", "sum"), ("overlap", -1), ("overlap", 257), ("overlap", 1.5)]
)
def test_another_rule_or_overlap_is_refused_by_its_name(field: str, value: object) -> None:
    assert refused(**{field: value}).startswith(f"{field}: ")


def test_an_unknown_label_set_lists_the_known_ones() -> None:
    with pytest.raises(UnknownLabelSet, match="no label set 'sales'; this worker knows: reports, support"):
        decoded(labels=None, label_set="sales")


def test_a_future_major_version_is_refused_as_such() -> None:
    with pytest.raises(UnsupportedVersion, match=r"2\.0 came, this worker speaks 1\.x; upgrade the worker"):
        decoded(schema_version="2.0")


def test_unknown_fields_are_ignored_in_a_newer_minor_version_only() -> None:
    assert decoded(schema_version="1.7", colour="red")
    assert refused(colour="red") == "colour: unknown field"


@pytest.mark.parametrize("version", ["1", "one", 1.0, None, "1.0.0", "1.x", "99999.0"])
def test_a_version_that_is_none_is_refused(version: object) -> None:
    assert refused(schema_version=version).startswith("schema_version: ")


def test_every_wrong_field_is_named_and_no_value_shown() -> None:
    text = refused(text=["secret"], revision="secret", labels="secret")
    assert text == "labels: expected a list; text: expected a text; revision: expected a whole number"


@pytest.mark.parametrize("value", [1, 1.0, True, None, ["a"], {"a": "b"}])
def test_a_text_of_another_type_is_refused(value: object) -> None:
    assert refused(text=value) == "text: expected a text"


def test_a_text_is_measured_after_cleaning() -> None:
    assert decoded(text=" " + "a" * MAX_TEXT_CHARS + "\x00").text == "a" * MAX_TEXT_CHARS
    assert refused(text="a" * 20_431) == "text: 20,431 characters, limit is 20,000"
    assert refused(text=" \x00\n") == "text: empty after cleaning; send 1 character or more"


def test_labels_and_a_label_set_are_too_much() -> None:
    assert refused(label_set="support") == "labels and label_set: give one of them, not both"


def test_another_model_is_refused_by_name() -> None:
    assert refused(model="large") == "model: 'large' is asked for; this worker serves 'demo'"


def test_the_kind_must_agree_with_the_task() -> None:
    assert decoded(TAG_COMMENT, kind="comment").kind == "comment"
    assert refused(kind="comment") == "kind: 'comment' was sent as tagmill.tag_ticket; the two must agree"


@pytest.mark.parametrize(
    "template", ["", "no slot", "{} and {}", "{0}", "{label}", "{!r}", "{:>9}", "{", "{}}", "{}{{", "}{"]
)
def test_a_template_has_one_slot_and_no_other_brace(template: str) -> None:
    with pytest.raises(InvalidMessage, match=r"exactly one \{\}"):
        check_template(template)


def test_items_inherit_and_fail_one_by_one() -> None:
    body = {"labels": ["a", "b"], "source": "zendesk", "items": [{"text": "x"}, {"text": ""}, {"text": "y", "id": "i"}]}
    first, second, third = DECODER.many(body, task_id="m")
    assert isinstance(first, TagTask)
    assert isinstance(second, InvalidMessage)
    assert isinstance(third, TagTask)
    assert (first.id, third.id, third.source) == ("m/0", "i", "zendesk")


@pytest.mark.parametrize("n", [0, 4])
def test_too_few_or_too_many_items_are_refused(n: int) -> None:
    with pytest.raises(InvalidMessage, match=r"items: (none|4) given"):
        DECODER.many({"labels": ["a"], "items": [{"text": "x"}] * n}, task_id="m")


def test_the_body_is_the_only_argument_or_the_named_ones() -> None:
    assert body_of([GOOD], {}) == body_of([], GOOD) == GOOD
    for args, kwargs in (([], {}), ([GOOD, GOOD], {}), ([GOOD], GOOD)):
        with pytest.raises(InvalidMessage, match="send one JSON object as the only argument"):
            body_of(args, kwargs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from(sorted({name for schema in json_schemas().values() for name in schema["properties"]}))
near_misses = st.dictionaries(field_names, json_values | st.just(["a", "b"]) | st.just("1.0"), max_size=6)


@given(json_values | near_misses | near_misses.map(lambda changes: {**GOOD, **changes}))
def test_whatever_json_comes_it_is_a_task_or_an_invalid_message(body: object) -> None:
    for decode in (
        lambda: [DECODER.one(TAG_TICKET, body, task_id="t")],
        lambda: DECODER.many(body, task_id="t"),
        lambda: DECODER.many({"labels": ["a"], "items": [body]}, task_id="t"),
    ):
        try:
            results = decode()
        except InvalidMessage as e:
            results = [e]
        assert all(isinstance(result, TagTask | InvalidMessage) for result in results)
