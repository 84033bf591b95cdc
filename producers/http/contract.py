"""The OpenAPI description, with the message contract's own schemas in it."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from producers.http.problems import MEDIA_TYPE, kinds
from producers.http.reading import MAX_TASKS
from tagging.answers import Answer
from tagging.messages import TagRequest

_TEMPLATE: Final = "#/components/schemas/{model}"
_TIME: Final = {"type": "string", "format": "date-time"}


def describe(app: FastAPI) -> None:
    """Have the app describe itself in the words of the contract."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(get_openapi(title=app.title, version=app.version, routes=app.routes))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI's documentation asks for it


def _completed(description: dict[str, Any]) -> dict[str, Any]:
    components = description.setdefault("components", {})
    components["schemas"] = _schemas()
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    description["security"] = [{"key": []}]
    paths = description["paths"]
    _takes(paths["/v1/tasks"]["post"], {"oneOf": [_ref("TagRequest"), _list_of("TagRequest", MAX_TASKS)]})
    _takes(paths["/v1/tags"]["post"], _ref("TagRequest"))
    _answers(paths["/v1/tasks"]["post"], {"202": ("Accepted", _ref("Taken"))})
    _answers(paths["/v1/tags"]["post"], {"200": ("Tagged", _ref("Answer")), "202": ("Accepted", _ref("Task"))})
    _answers(paths["/v1/tasks/{id}"]["get"], {"200": ("What is known of it", _ref("Task"))})
    _answers(paths["/v1/tickets/{source}/{ref}"]["get"], {"200": ("What stands", _ref("Document"))})
    for path, methods in paths.items():
        for operation in methods.values():
            _may_fail(operation, path)
    paths["/v1/tasks/{id}/events"]["get"]["responses"]["200"]["content"] = {
        "text/event-stream": {"schema": {"type": "string"}}
    }
    return description


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for name, schema in (
        ("TagRequest", _request()),
        ("Answer", TypeAdapter(Answer).json_schema(ref_template=_TEMPLATE)),
    ):
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    task = {
        "id": {"type": "string"},
        "state": {"enum": ["accepted", "published", "postponed", "done", "superseded", "dead", "erased"]},
        "source": {"type": "string"},
        "ref": {"type": ["string", "null"]},
        "revision": {"type": ["integer", "null"]},
        "reason": {"type": ["string", "null"]},
        "accepted_at": _TIME,
        "finished_at": {"anyOf": [_TIME, {"type": "null"}]},
    }
    taken = {"id": {"type": "string"}, "outcome": {"enum": ["accepted", "known"]}, "location": {"type": "string"}}
    answer = {"anyOf": [_ref("Answer"), {"type": "null"}]}
    return {
        **schemas,
        "Task": _object(task | {"answer": answer}),
        "Taken": _object({"tasks": {"type": "array", "items": _object(taken)}}),
        "Document": _object(
            {
                "source": {"type": "string"},
                "ref": {"type": "string"},
                "tags": {"type": "array", "items": _ref("Answer")},
                "history": {"type": "array", "items": _object(task)},
            }
        ),
        "Problem": {
            "type": "object",
            "description": "RFC 9457. `type` is stable: " + ", ".join(f"`{kind}` ({n})" for kind, n in kinds().items()),
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
            "required": ["type", "title", "status"],
        },
    }


def _request() -> dict[str, Any]:
    """The contract's request, but for its id, which is given here."""
    schema = TagRequest.model_json_schema(ref_template=_TEMPLATE)
    del schema["properties"]["id"]
    return schema


def _takes(operation: dict[str, Any], schema: Mapping[str, Any]) -> None:
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    operation.setdefault("parameters", []).append(
        {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 200}}
    )


def _answers(operation: dict[str, Any], answers: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    operation["responses"] = {
        status: {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, (text, schema) in answers.items()
    }


def _may_fail(operation: dict[str, Any], path: str) -> None:
    if path.startswith("/v1/"):
        problem = {"description": "A problem", "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}
        operation["responses"].pop("422", None)
        operation["responses"] |= {"4XX": problem, "5XX": problem}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _list_of(name: str, most: int) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name), "minItems": 1, "maxItems": most}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=name)}
