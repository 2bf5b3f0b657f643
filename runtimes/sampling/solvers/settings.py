"""Settings of a scheduler that a solver implements, and the refusal of all others by name."""

from collections.abc import Collection, Mapping

from budc.schema.errors import UnsupportedModel
from budc.schema.policy import SamplerBinding


def check_settings(
    sampler: SamplerBinding, accepted: Mapping[str, Collection[object]], schedule: Collection[str]
) -> None:
    """Refuse a binding with a setting that the solver would have to ignore.

    Args:
        sampler: the binding.
        accepted: settings of the update rule and the values that are implemented.
        schedule: settings that affect the sigmas alone; a binding has its own sigmas, so any value is accepted.

    Raises:
        UnsupportedModel: an unknown setting, or a value that is not implemented.
    """
    for name, value in sampler.config.items():
        if name in schedule:
            continue
        where = f"scheduler: {sampler.scheduler}.{name}"
        remedy = "run the policy with the diffusers runtime"
        if name not in accepted:
            raise UnsupportedModel(f"{where} is a setting that this solver does not implement", remedy=remedy)
        if value not in accepted[name]:
            values = ", ".join(repr(item) for item in accepted[name])
            raise UnsupportedModel(f"{where} is {value!r}, only {values} is implemented", remedy=remedy)
