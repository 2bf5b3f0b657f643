"""SGLang's DPCache schedule, `sglang-dpcache-schedule-v2`: its form, a reader, and the check of a request against it.

The reader refuses what SGLang's own loader refuses when a server starts, and `check_request` what it refuses when a
request comes. An unknown field beside the required ones is let pass by both.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from budc.schema.errors import CalibrationMismatch, SchemaViolation, SemanticsViolation
from budc.schema.fields import HexDigest
from budc.schema.mask import StepMask

SCHEMA: Final = "sglang-dpcache-schedule-v2"
Objective = Literal["pact-mean-abs-final-feature-predicted-steps-only-v1"]
OBJECTIVE: Final = get_args(Objective)[0]
"""The only one that the loader accepts."""

_Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
_Pixels = Annotated[int, Meta(ge=1)]
_Step = Annotated[int, Meta(ge=0)]


class Predictor(Struct, frozen=True, forbid_unknown_fields=True):
    """How a step is predicted: the linear forecast of the output of the blocks, in its own dtype."""

    name: Literal["final-feature-linear-extrapolation"] = "final-feature-linear-extrapolation"
    order: Literal[1] = 1
    arithmetic: Literal["feature-dtype-elementwise-v1"] = "feature-dtype-elementwise-v1"


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request, and the server that answers it, must be. None: not known."""

    pipeline: str | None
    checkpoint: str | None
    num_inference_steps: Annotated[int, Meta(ge=2)]
    height: _Pixels
    width: _Pixels
    guidance_scale: _Finite
    do_classifier_free_guidance: bool
    quality: str | None
    attention_backend: str | None
    dtype: Literal["bfloat16"]
    scheduler: str
    scheduler_config_sha256: str | None
    timesteps: tuple[_Finite, ...]
    """In the precision of float32, as sigmas."""
    sigmas: tuple[_Finite, ...]


class Calibration(Struct, frozen=True, kw_only=True):
    """What the schedule was made from."""

    manifest_sha256: HexDigest
    num_samples: _Step


class Schedule(Struct, frozen=True, kw_only=True):
    """A schedule file."""

    schema: Literal["sglang-dpcache-schedule-v2"]
    predictor: Predictor
    objective: Objective
    source_commit: Annotated[str, Meta(min_length=1)]
    request: Request
    mandatory_full_steps: Annotated[tuple[_Step, ...], Meta(min_length=2)]
    force_last_full: bool
    max_gap: Annotated[int, Meta(ge=1)] | None
    num_full_steps: int
    full_steps: tuple[_Step, ...]
    calibrated_cost: _Finite
    calibration: Calibration

    @property
    def mask(self) -> StepMask:
        """The mask of all guidance branches."""
        return StepMask.from_compute_steps(self.request.num_inference_steps, self.full_steps)


def read_schedule(content: bytes) -> Schedule:
    """Read a schedule file.

    Raises:
        SchemaViolation: a field is missing, of another type or out of bounds, or its schema, predictor or objective is
            another one.
        SemanticsViolation: the fields contradict each other.
    """
    try:
        schedule = msgspec.json.decode(content, type=Schedule)
    except msgspec.DecodeError as error:
        raise SchemaViolation(f"DPCache schedule: {error}", remedy="export it again") from error
    for wrong in _contradictions(schedule):
        raise SemanticsViolation(f"DPCache schedule: {wrong}", remedy="export it again")
    return schedule


def check_request(schedule: Schedule, request: Request) -> None:
    """Refuse a request that the schedule was not made for.

    Raises:
        CalibrationMismatch: a field differs; the error names the first with both values.
    """
    expected: Mapping[str, Any] = msgspec.to_builtins(schedule.request)
    for name, value in msgspec.to_builtins(request).items():
        if expected[name] != value:
            raise CalibrationMismatch(
                f"{name}: the schedule has {expected[name]}, this request {value}",
                remedy="use the schedule of this request, or export one for it",
            )


def _contradictions(schedule: Schedule) -> list[str]:
    steps, full = schedule.request.num_inference_steps, schedule.full_steps
    leading = schedule.mandatory_full_steps
    wrong = [
        f"request.{name} has {len(values)} values, expected {length}"
        for name, values, length in (
            ("timesteps", schedule.request.timesteps, steps),
            ("sigmas", schedule.request.sigmas, steps + 1),
        )
        if len(values) != length
    ]
    if leading != tuple(range(len(leading))) or len(leading) > steps:
        wrong.append(f"mandatory_full_steps is {list(leading)}, expected the first steps in order")
    if list(full) != sorted(set(full)) or (full and full[-1] >= steps):
        wrong.append(f"full_steps is {list(full)}, expected ascending steps below {steps}")
    if full[: len(leading)] != leading:
        wrong.append("full_steps does not begin with mandatory_full_steps")
    if schedule.num_full_steps != len(full):
        wrong.append(f"num_full_steps is {schedule.num_full_steps}, but full_steps has {len(full)}")
    if schedule.force_last_full and full[-1:] != (steps - 1,):
        wrong.append(f"force_last_full is set, but step {steps - 1} is not in full_steps")
    gap = max((after - before for before, after in pairwise((*full, steps))), default=0)
    if schedule.max_gap is not None and gap > schedule.max_gap:
        wrong.append(f"max_gap is {schedule.max_gap}, but full_steps has a gap of {gap}")
    return wrong
