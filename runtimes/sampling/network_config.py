"""Settings of a network in memory against those that a policy lists, and the defaults of the library's classes."""

import inspect
from collections.abc import Mapping
from typing import Any

from budc.schema.errors import WeightsMismatch
from budc.schema.model_config import first_difference, settings_of
from budc.schema.policy import DenoiserBinding

_QUANTIZED = "quantization_config"


def class_defaults(network_class: type) -> Mapping[str, object]:
    """Return the defaults of the settings that a class of networks takes."""
    parameters = inspect.signature(network_class).parameters.values()
    return {item.name: item.default for item in parameters if item.default is not item.empty}


def library_defaults(class_name: str) -> Mapping[str, object]:
    """Return the defaults of a class of diffusers; empty where diffusers or the class is not there."""
    try:
        import diffusers
    except ImportError:
        return {}
    network_class = getattr(diffusers, class_name, None)
    return {} if network_class is None else class_defaults(network_class)


def check_settings(transformer: Any, denoiser: DenoiserBinding) -> None:
    """Check that a network was built with the settings of its binding, whatever its files say.

    Raises:
        WeightsMismatch: a setting is another one.
    """
    if denoiser.config is None:
        return
    # How it is quantised is no setting of the files, and is compared by itself.
    settings = {name: value for name, value in settings_of(transformer.config).items() if name != _QUANTIZED}
    difference = first_difference(denoiser.config, settings, lambda: class_defaults(type(transformer)))
    if difference is not None:
        raise WeightsMismatch(
            f"{denoiser.name} was loaded with {difference.name} {difference.actual!r}, "
            f"the policy is for {difference.expected!r}",
            remedy="load it with the settings of its model folder",
        )
