"""The JSON schema of a pydantic class, as narrow as the class itself where pydantic's own is wider."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rapid_integrations.structured.closed import closed

_INTEGER_KEY = r"^-?(?:0|[1-9][0-9]{0,17})$"


def class_schema(output_class: type[BaseModel]) -> dict[str, Any]:
    """Return what an answer must satisfy to be read as `output_class`; objects hold what it declares and no more."""
    found: dict[str, Any] = closed(output_class.model_json_schema(schema_generator=_Narrow))
    return found


class _Narrow(GenerateJsonSchema):
    """pydantic takes decimals as text of any kind, integer keys as any text, and a URL of any scheme, in its schema."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Return a number with the decimal's bounds and places."""
        bounds = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
        found: dict[str, Any] = {"type": "number"}
        found |= {word: float(schema[key]) for key, word in bounds.items() if schema.get(key) is not None}  # type: ignore[literal-required]
        places, digits = schema.get("decimal_places"), schema.get("max_digits")
        multiple = schema.get("multiple_of")
        if multiple is not None:
            found["multipleOf"] = float(multiple)
        elif places is not None:
            found["multipleOf"] = 1 if places == 0 else float(f"1e-{places}")
        if digits is not None:
            largest = 10 ** (digits - (places or 0))
            found["exclusiveMinimum"] = max(found.get("exclusiveMinimum", -largest), -largest)
            found["exclusiveMaximum"] = min(found.get("exclusiveMaximum", largest), largest)
            if places is None:
                found["multipleOf"] = found.get("multipleOf", 1)
        return found

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Return an object whose keys can be read as the dictionary's."""
        found = super().dict_schema(schema)
        keys = schema.get("keys_schema", {})
        if keys.get("type") == "int" and "propertyNames" not in found:
            found["propertyNames"] = {"pattern": _INTEGER_KEY}
        return found

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """Return a URL of the schemes that are allowed."""
        found = super().url_schema(schema)
        if schemes := schema.get("allowed_schemes"):
            found["pattern"] = rf"^(?:{'|'.join(schemes)}):"
        return found

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        """Return the text of a complex number."""
        number = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
        return {"type": "string", "pattern": rf"^-?{number}(?:[+-]{number}j)?$"}
