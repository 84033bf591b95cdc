"""The documents that are read from an unchecked body are those that a worker will store under."""

from hypothesis import given
from hypothesis import strategies as st

from tagging.documents import ERASED_ITEM, Document, documents_of, texts_of, without
from tagging.errors import DocumentErased
from tagging.labels import LabelBook
from tagging.messages import Decoder, TagTask
from tagging.names import TAG_COMMENT, TAG_MANY, TAG_TICKET

NAMES = st.one_of(st.none(), st.sampled_from(["zendesk", "github", "7"]))
KINDS = st.one_of(st.none(), st.sampled_from(["ticket", "comment"]))
DECODER = Decoder(book=LabelBook(), model="fake", default_template="{}")


def fields(**given_: object) -> dict[str, object]:
    return {name: value for name, value in given_.items() if value is not None}


def document(task: TagTask) -> Document:
    return Document(task.source, task.ref, task.kind)


@given(task=st.sampled_from([TAG_TICKET, TAG_COMMENT]), source=NAMES, ref=NAMES, id_=NAMES)
def test_of_a_single_text(task, source, ref, id_):
    body = fields(text="…", labels=["a", "b"], source=source, ref=ref, id=id_)
    assert documents_of(task, body, task_id="t") == [document(DECODER.one(task, body, task_id="t"))]


@given(
    shared=st.builds(fields, source=NAMES, kind=KINDS, id=NAMES),
    items=st.lists(st.builds(fields, source=NAMES, ref=NAMES, id=NAMES, kind=KINDS), min_size=1, max_size=5),
)
def test_of_each_item_of_many(shared, items):
    body = {**shared, "labels": ["a", "b"], "items": [{"text": "…", **item} for item in items]}
    decoded = DECODER.many(body, task_id="t")
    assert documents_of(TAG_MANY, body, task_id="t") == [document(task) for task in decoded]


def test_what_is_no_message_is_about_nothing():
    for body in (None, "text", 7, ["text"]):
        assert documents_of(TAG_TICKET, body, task_id="t") == []
    assert documents_of(TAG_MANY, {"items": "none"}, task_id="t") == []
    assert documents_of(TAG_MANY, {"items": [None, 7]}, task_id="t") == []


def test_an_erased_item_leaves_its_place_to_nobody():
    body = {"items": [{"text": "a", "ref": "1"}, {"text": "b", "ref": "2"}], "labels": ["x", "y"]}
    left = without({Document("api", "1", "ticket")}, TAG_MANY, body, task_id="t")
    assert left["items"] == [ERASED_ITEM, {"text": "b", "ref": "2"}]
    assert documents_of(TAG_MANY, left, task_id="t") == [Document("api", "2", "ticket")]
    first, second = DECODER.many(left, task_id="t")
    assert isinstance(first, DocumentErased)
    assert second.id == "t/1"


def test_a_message_of_which_all_is_erased_is_none():
    gone = {Document("api", "1", "ticket")}
    assert without(gone, TAG_TICKET, {"text": "a", "ref": "1"}, task_id="t") is None
    assert without(gone, TAG_MANY, {"items": [{"text": "a", "ref": "1"}]}, task_id="t") is None
    assert without(gone, TAG_MANY, {"items": []}, task_id="t") == {"items": []}


def test_the_texts_of_one_document_are_its_own():
    body = {"items": [{"text": "a", "ref": "1"}, {"text": "b", "ref": "2"}, {"ref": "1"}]}
    assert texts_of(Document("api", "1", "ticket"), TAG_MANY, body, task_id="t") == ["a"]
