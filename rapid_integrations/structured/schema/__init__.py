"""Turn a JSON schema as people write it into one that the grammar library enforces.

pydantic, OpenAPI (3.0's `nullable`, formats, discriminators) and MCP tools write keywords and formats that the library
refuses. By the standard an unknown one is an annotation. A rule that restricts values but cannot be enforced token by
token (`not`, `uniqueItems`, `if`) is left out. The grammar then allows more, so the rule is listed, and the answer is
checked afterwards (`rapid_integrations.structured.checking`).

    conversion    a whole schema, and the order of the steps for each within it; start here
    result        what a conversion gives
    left_out      what is not enforced, and given up if the library refuses a schema with it
    kinds         `type`
    constants     `const` and `enum`
    numbers       bounds, steps and formats of integers
    strings       lengths, patterns, formats and encodings
    arrays        items, and how many
    objects       properties, and how many
    names         what properties may be called
    combinations  `anyOf`, `oneOf` and `allOf`
    exclusive     whether the options of a `oneOf` exclude one another
    refs          `$ref` and its kin
    finite        whether an answer can end
    escapes       how an answer may spell its strings

Each step reads keywords of the schema as it was given, writes those of the library's into `out`, and says what it
leaves out. Where references lead (`references.py`), what drafts say differently (`drafts.py`), and the expressions of
formats and patterns (`formats.py`, `patterns.py`) are also needed to check answers, so they lie beside this folder.
"""

from rapid_integrations.structured.schema.conversion import enforceable
from rapid_integrations.structured.schema.escapes import ESCAPES, needs_code_points
from rapid_integrations.structured.schema.left_out import GIVEN_UP
from rapid_integrations.structured.schema.result import Enforceable

__all__ = ["ESCAPES", "GIVEN_UP", "Enforceable", "enforceable", "needs_code_points"]
