"""The scheduler that a profile deploys, made from the configuration of a model folder."""

from collections.abc import Mapping
from typing import Any

_EULER = "FlowMatchEulerDiscreteScheduler"


def deployed_scheduler(scheduler: Any, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return a scheduler of the class `scheduler` with the folder's configuration, in which `settings` differ.

    A class other than the folder's keeps the shift of the schedule, which flow-matching Euler calls by another name
    than the multistep solvers do.
    """
    merged = {**config, **settings}
    class_name = scheduler.__name__
    if class_name != config.get("_class_name"):
        if class_name == _EULER:
            merged.setdefault("shift", merged.pop("flow_shift", 1.0))
        else:
            merged.setdefault("flow_shift", merged.pop("shift", 1.0))
            merged |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return scheduler.from_config(merged)
