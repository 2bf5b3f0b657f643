"""A policy as an engine runs it, and the engine's configuration file with it."""

from collections.abc import Mapping

from msgspec import Struct

from budc.schema.mask import StepMask
from budc.schema.policy import Policy, PolicyDocument


class Deployment(Struct, frozen=True, kw_only=True):
    """A policy as an engine runs it."""

    document: PolicyDocument
    policy_id: str
    policy: Policy
    """With the masks and the coefficients of the engine."""
    losses: tuple[str, ...]
    """What is different from the policy that was given, one sentence each; empty where nothing is."""
    settings: Mapping[str, str]
    """What the user says of the engine."""
    suffix: str = ""
    """Of the file to write, with its dot."""

    @property
    def masks(self) -> dict[str, StepMask]:
        """The mask of each guidance branch."""
        return {name: own.step_mask() for own in self.policy.branches for name in own.names}

    @property
    def mask(self) -> StepMask:
        """The mask of all guidance branches, or of the first."""
        return next(iter(self.masks.values()))


class Configuration(Struct, frozen=True):
    """An engine's configuration file."""

    text: str
    usage: str
    """How it is loaded, with FILE for its name."""
    unknown: tuple[str, ...] = ()
    """Fields that neither the policy nor the user says, one sentence each."""
