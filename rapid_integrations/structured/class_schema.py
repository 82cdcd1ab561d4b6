"""The JSON schema of a pydantic class or another type, narrowed to what pydantic accepts for it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rapid_integrations.structured.closed import closed

_INTEGER_KEY = r"^-?(?:0|[1-9][0-9]{0,17})$"


def class_schema(output_class: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of answers that `output_class` accepts. Objects hold only declared properties."""
    found: dict[str, Any] = closed(output_class.model_json_schema(schema_generator=_Narrow))
    return found


def type_schema(kind: Any) -> dict[str, Any]:
    """Return the schema of answers that pydantic accepts for a type: a dataclass, a union, a list of classes.

    Raises:
        PydanticUserError, TypeError, ValueError: pydantic cannot make one.
    """
    found: dict[str, Any] = closed(TypeAdapter(kind).json_schema(schema_generator=_Narrow))
    return found


class _Narrow(GenerateJsonSchema):
    """Narrows pydantic's schema, which allows any text as a decimal or an integer key, and URLs of any scheme."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Return the schema of a number with the decimal's bounds and places."""
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

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Return the schema of a date and time, without a zone if the class takes none."""
        found = super().datetime_schema(schema)
        if schema.get("tz_constraint") == "naive" and found.get("format") == "date-time":
            found["format"] = "date-time-local"
        return found

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Return the schema of an object whose keys have the type of the dictionary's."""
        found = super().dict_schema(schema)
        keys = schema.get("keys_schema", {})
        if keys.get("type") == "int" and "propertyNames" not in found:
            found["propertyNames"] = {"pattern": _INTEGER_KEY}
        return found

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """Return the schema of a URL with the allowed schemes."""
        found = super().url_schema(schema)
        if schemes := schema.get("allowed_schemes"):
            found["pattern"] = rf"^(?:{'|'.join(schemes)}):"
        return found

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        """Return the schema of a complex number as text."""
        number = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
        return {"type": "string", "pattern": rf"^-?{number}(?:[+-]{number}j)?$"}
