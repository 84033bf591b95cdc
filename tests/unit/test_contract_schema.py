"""``docs/message-contract.md`` shows the schemas of the models as they are."""

import json
import re

import jsonschema
import pytest

from tagging import messages, schemas
from tagging.labels import MAX_LABEL_CHARS
from tests.answers import LABELS, TEXT, stored

PAGE = schemas.PAGE.read_text(encoding="utf-8")


def shown() -> dict[str, dict[str, object]]:
    found = re.findall(r"^### ([^\n]+)\n\n```json\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def test_is_up_to_date() -> None:
    assert schemas.with_schemas(PAGE) == PAGE, "run `python -m tagging.schemas`"


def test_shows_messages_and_answers() -> None:
    assert list(shown()) == [
        "tagmill.tag_ticket, tagmill.tag_comment",
        "tagmill.tag_many",
        "item of tagmill.tag_many",
        "answer",
        "answer of tagmill.tag_many",
    ]


@pytest.mark.parametrize("name", shown())
def test_each_is_a_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(shown()[name])


def test_a_message_is_valid_by_what_is_shown() -> None:
    schema = shown()["tagmill.tag_ticket, tagmill.tag_comment"]
    jsonschema.validate({"text": TEXT, "labels": list(LABELS), "ref": "T-1"}, schema)
    with pytest.raises(jsonschema.ValidationError, match="lables"):
        jsonschema.validate({"text": TEXT, "lables": list(LABELS)}, schema)


def test_an_answer_is_valid_by_what_is_shown() -> None:
    jsonschema.validate(stored().answer, shown()["answer"])


def test_every_field_is_explained() -> None:
    by_hand = PAGE.partition("## Schemas")[0]
    for name in ("tagmill.tag_ticket, tagmill.tag_comment", "item of tagmill.tag_many", "answer"):
        fields = shown()[name]["properties"]
        assert isinstance(fields, dict)
        assert not [field for field in fields if f"`{field}`" not in by_hand]


def test_the_limits_are_those_of_the_code() -> None:
    for limit in (messages.MAX_TEXT_CHARS, messages.MAX_LABELS, messages.MAX_ITEMS, MAX_LABEL_CHARS):
        assert f"1 to {limit:,} " in PAGE


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        schemas.with_schemas("# A page\n")
