"""The OpenAPI document of the server, made from the models of the bodies."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

import rapid_integrations
from rapid_integrations.server.requests import ChatRequest, CompletionRequest, EmbeddingRequest

_REFERENCES = "#/components/schemas/{model}"
_OBJECT = {"type": "object"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_FILE = {
    "type": "object",
    "required": ["id", "object", "bytes", "created_at", "filename", "purpose", "status"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "file"},
        "bytes": {"type": "integer"},
        "created_at": {"type": "integer"},
        "filename": {"type": "string"},
        "purpose": {"type": "string"},
        "status": {"enum": ["uploaded", "processed", "error"]},
        "status_details": {"type": ["string", "null"]},
        "rapid": _OBJECT,
    },
}
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "maxLength": 64}},
}
_ID = {"name": "file_id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 100}}
_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 100}}
_LISTING = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10000}},
    {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}},
    {"name": "after", "in": "query", "schema": {"type": "string"}},
    {"name": "purpose", "in": "query", "schema": {"type": "string"}},
]


def document() -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {"Error": _ERROR, "File": _FILE}
    for model in (ChatRequest, CompletionRequest, EmbeddingRequest):
        schemas |= _schemas(model)
    return {
        "openapi": "3.1.0",
        "info": {"title": "RAPID", "version": rapid_integrations.__version__},
        "paths": {
            "/health": {"get": _operation("health", "Whether the process answers", _json(_OBJECT))},
            "/ready": {"get": _operation("ready", "Whether it takes requests", _json(_OBJECT), "503")},
            "/metrics": {"get": _operation("metrics", "Counters for Prometheus", {"text/plain": {}})},
            "/v1/models": {"get": _operation("listModels", "The models", _json(_OBJECT))},
            "/v1/models/{model}": {
                "parameters": [_MODEL],
                "get": _operation("retrieveModel", "One model", _json(_OBJECT), "404"),
            },
            "/v1/files": {
                "get": {**_operation("listFiles", "The documents", _json(_OBJECT), "400"), "parameters": _LISTING},
                "post": {
                    **_operation("createFile", "Upload a document", _json(_reference("File")), "400", "413", "415"),
                    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}},
                },
            },
            "/v1/files/{file_id}": {
                "parameters": [_ID],
                "get": _operation("retrieveFile", "One document", _json(_reference("File")), "404"),
                "delete": _operation("deleteFile", "Delete a document", _json(_OBJECT), "404"),
            },
            "/v1/files/{file_id}/content": {
                "parameters": [_ID],
                "get": _operation("downloadFile", "Its bytes", {"application/octet-stream": {}}, "404"),
            },
            "/v1/files/{file_id}/text": {
                "parameters": [_ID],
                "get": _operation("readFile", "Its text and pages", _json(_OBJECT), "404", "409"),
            },
            "/v1/chat/completions": {"post": _answering("createChatCompletion", ChatRequest)},
            "/v1/completions": {"post": _answering("createCompletion", CompletionRequest)},
            "/v1/embeddings": {"post": _asking("createEmbedding", EmbeddingRequest, _json(_OBJECT))},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _answering(name: str, model: type[BaseModel]) -> dict[str, Any]:
    return _asking(name, model, {**_json(_OBJECT), "text/event-stream": {}})


def _asking(name: str, model: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    statuses = ("400", "404", "408", "409", "413", "415", "422", "429", "501", "503", "504")
    return {
        **_operation(name, (model.__doc__ or "").split("\n")[0], content, *statuses),
        "requestBody": {"required": True, "content": _json(_reference(model.__name__))},
    }


def _operation(name: str, summary: str, content: dict[str, Any], *statuses: str) -> dict[str, Any]:
    failures = {"description": "The request failed", "content": _json(_reference("Error"))}
    responses = {"200": {"description": "The answer", "content": content}}
    responses |= dict.fromkeys((*statuses, "default"), failures)
    return {"operationId": name, "summary": summary, "responses": responses}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCES.format(model=name)}


def _schemas(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a model and those of its parts."""
    whole = model.model_json_schema(ref_template=_REFERENCES)
    return {**whole.pop("$defs", {}), model.__name__: whole}
