"""The published JSON Schemas, applied by a validator that is independent of the Structs.

Reading does not need them: the Structs say the same, which a test checks. Sealing uses them, so that nothing is signed
which a reader in another language would refuse.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from budc.schema import canonical
from budc.schema.errors import SchemaViolation

POLICY_SCHEMA = "policy-v1.schema.json"
EVALUATION_SCHEMA = "evaluation-v1.schema.json"


@cache
def load_schema(name: str = POLICY_SCHEMA) -> dict[str, Any]:
    """Return the content of a schema, by the name of its file."""
    schema: dict[str, Any] = json.loads(files("budc.schema").joinpath(name).read_text("utf-8"))
    return schema


@cache
def _validator(name: str) -> Any:
    # Imported here: it takes a tenth of a second and only writing needs it.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(name))


def check_schema(payload: bytes, name: str = POLICY_SCHEMA) -> None:
    """Check the predicate of a statement against a published schema.

    Raises:
        ArtifactError: the payload is not canonical JSON.
        SchemaViolation: the predicate does not follow the schema; the message names the field.
    """
    value = canonical.decode(payload, what="payload")
    predicate = value.get("predicate") if isinstance(value, dict) else None
    error = next(_validator(name).iter_errors(predicate), None)
    if error is not None:
        raise SchemaViolation(f"{error.json_path} does not follow the schema: {error.message}")
