"""The published JSON Schema, applied by an implementation that shares nothing with the Structs.

Reading an artifact does not need it: the Structs say the same, and a test holds the two together. Sealing one
does it all the same, so that nothing is signed which another language's reader would refuse.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from budc.schema import canonical
from budc.schema.errors import SchemaViolation

SCHEMA_FILE = "policy-v1.schema.json"


@cache
def load_schema() -> dict[str, Any]:
    """Return `policy-v1.schema.json` as it lies beside this module."""
    schema: dict[str, Any] = json.loads(files("budc.schema").joinpath(SCHEMA_FILE).read_text("utf-8"))
    return schema


@cache
def _validator() -> Any:
    # Imported here: it costs a tenth of a second, which only writing has to pay.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema())


def check_schema(payload: bytes) -> None:
    """Check the predicate of a statement against the published schema.

    Raises:
        ArtifactError: the payload is not canonical JSON.
        SchemaViolation: the predicate does not follow the schema; the message names the place.
    """
    value = canonical.decode(payload, what="payload")
    predicate = value.get("predicate") if isinstance(value, dict) else None
    error = next(_validator().iter_errors(predicate), None)
    if error is not None:
        raise SchemaViolation(f"{error.json_path} does not follow the schema: {error.message}")
