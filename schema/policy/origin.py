"""Search and Target: where a policy comes from, and the engine that it was made for."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, field

from budc.schema.fields import Count, Digest, Name, Settings, Strict, Text


class Search(Strict, frozen=True, kw_only=True):
    """How the policy was found: enough to repeat the search."""

    algorithm: Name
    seed: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    candidates: Count
    """Candidates scored."""
    forwards: Count
    """Transformer forwards spent; a backward pass counts as two."""
    settings: Settings
    versions: Annotated[Mapping[Name, Text], Meta(max_length=256)]
    """Package → version."""


class Target(Strict, frozen=True, kw_only=True):
    """The engine that a policy was made for, with the engine's own rule of reuse."""

    name: Name
    version: Text | None = None
    """The release of the engine whose behaviour the search assumed."""
    settings: Settings = field(default_factory=dict)
    """What the engine must be told beside the policy."""
    config_digest: Digest | None = None
    """sha256 of the engine's own configuration file with this policy."""
