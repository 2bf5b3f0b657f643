"""The files that are written for engines, read back as the engines read them."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from budc.runtimes.sampling.rules import fixed_rows
from budc.runtimes.targets.binding import bound_to_configuration, check_configuration
from budc.runtimes.targets.losses import deployed
from budc.runtimes.targets.openvino_genai import Interval, interval_of, periodic_masks
from budc.runtimes.targets.registry import TARGETS
from budc.runtimes.targets.sglang_dpcache import request_of
from budc.runtimes.targets.sglang_schedule import check_request, read_schedule
from budc.schema.errors import (
    CalibrationMismatch,
    SchemaViolation,
    SemanticsViolation,
    SignatureInvalid,
    UnsupportedModel,
    UsageError,
)
from budc.schema.mask import StepMask
from budc.schema.policy import Policy

ID = "sha256:" + "0" * 64


@pytest.fixture
def document(make_document):
    """A policy that computes its first two steps and the last one, in bfloat16, by SGLang's rule."""
    document = make_document(steps=8, branches=("cond",))
    steps = document.sampler.steps
    mask = StepMask.of([step < 2 or step == steps - 1 for step in range(steps)])
    rows = {"cond": fixed_rows("linear", mask)}
    return replace(
        document,
        shape=replace(document.shape, dtype="bfloat16"),
        policy=Policy.of("trunk-output", rows),
        budget=replace(document.budget, nfe=3, branches={"cond": 3}),
    )


def written(name, document, settings=None, suffix=""):
    deployment = deployed(TARGETS[name], document, ID, settings or {}, suffix)
    return TARGETS[name].write(deployment)


def test_magcache_s_own_arithmetic_gives_the_mask(document):
    config = json.loads(written("diffusers-magcache", document).text)
    computed, error, ratio = [], 0.0, 1.0
    for own in config["mag_ratios"]:
        ratio *= own
        error += abs(1 - ratio)
        computed.append(error > config["threshold"])
        if computed[-1]:
            error, ratio = 0.0, 1.0
    assert computed == document.policy.branches[0].mask
    assert config["num_inference_steps"] == config["max_skip_steps"] == len(computed)


def test_lightx2v_has_a_list_for_each_branch(make_document):
    document = make_document(steps=8)
    steps = document.sampler.steps
    masks = {"cond": [True] * steps, "uncond": [step == 0 for step in range(steps)]}
    rows = {name: fixed_rows("plain", StepMask.of(mask)) for name, mask in masks.items()}
    document = replace(document, policy=Policy.of("trunk-residual", rows))
    config = json.loads(written("lightx2v", document).text)
    assert [[own > 1 for own in ratios] for ratios in config["magcache_ratios"]] == list(masks.values())
    assert (config["infer_steps"], config["enable_cfg"]) == (steps, True)
    assert config["magcache_calibration"] is False


def test_cache_dit_reads_yaml_and_python(document):
    text = written("cache-dit", document, suffix=".yaml").text
    mask = [int(compute) for compute in document.policy.branches[0].mask]
    assert f"steps_computation_mask: {mask}" in text
    python = written("cache-dit", document, suffix=".py").text
    compile(python, "config.py", "exec")
    assert f"steps_computation_mask={mask}" in python
    with pytest.raises(UsageError, match=r"ends in \.json"):
        written("cache-dit", document, suffix=".json")


def test_an_interval_becomes_fields_and_another_mask_is_refused(document):
    steps = document.sampler.steps
    interval = Interval(3, 2, steps - 1)
    rows = {"cond": fixed_rows("linear", interval.mask(steps))}
    periodic = replace(document, policy=Policy.of("velocity", rows))
    config = json.loads(written("openvino-genai", periodic).text)
    assert Interval(*config.values()).mask(steps) == interval.mask(steps)
    irregular = StepMask.from_compute_steps(steps, (0, 1, 3, 6))
    other = replace(document, policy=Policy.of("velocity", {"cond": fixed_rows("linear", irregular)}))
    with pytest.raises(UnsupportedModel, match="is no interval"):
        written("openvino-genai", other)


def test_every_periodic_mask_is_of_its_interval():
    every = {
        Interval(length, before, after).mask(9)
        for length in range(2, 10)
        for before in range(9)
        for after in range(10)
    }
    for nfe in range(1, 9):
        masks = periodic_masks(9, nfe)
        assert set(masks) == {mask for mask in every if mask.nfe == nfe}
        for mask in masks:
            interval = interval_of(mask)
            assert interval is not None
            assert interval.mask(9) == mask
    assert periodic_masks(9, 9) == (StepMask.of([True] * 9),)
    assert interval_of(StepMask.of([True] * 9)) == Interval(2, 9, 9)
    assert interval_of(StepMask.from_compute_steps(9, (0, 1, 3, 6))) is None


def test_sd_cpp_takes_the_sigmas(document):
    line = written("sd.cpp", document).text.split()
    assert [float(sigma) for sigma in line[-1].split(",")] == pytest.approx(document.sampler.sigmas)
    other = replace(document, sampler=replace(document.sampler, scheduler="UniPCMultistepScheduler"))
    with pytest.raises(UnsupportedModel, match="takes steps like it with FlowMatchEuler"):
        written("sd.cpp", other)


def test_a_schedule_of_sglang_is_read_back(document):
    settings = dict.fromkeys(TARGETS["sglang-dpcache"].settings, "x")
    configuration = written("sglang-dpcache", document, settings)
    schedule = read_schedule(configuration.text.encode())
    assert schedule.mask == document.policy.for_branch("cond").step_mask()
    assert schedule.request.attention_backend == "x"
    assert [line.partition(":")[0] for line in configuration.unknown] == ["objective"]


def test_what_is_not_known_is_null_and_reported(document):
    configuration = written("sglang-dpcache", document, {"pipeline": "QwenImagePipelineConfig"})
    assert read_schedule(configuration.text.encode()).request.checkpoint is None
    assert [line.partition(":")[0] for line in configuration.unknown] == [
        "request.checkpoint",
        "request.attention_backend",
        "request.quality",
        "request.scheduler_config_sha256",
        "objective",
    ]


def test_a_request_that_differs_is_refused_with_both_values(document):
    schedule = read_schedule(written("sglang-dpcache", document).text.encode())
    request = request_of(deployed(TARGETS["sglang-dpcache"], document, ID, {}))
    check_request(schedule, request)
    with pytest.raises(CalibrationMismatch, match=r"height: the schedule has .*, this request 8"):
        check_request(schedule, replace(request, height=8))
    with pytest.raises(CalibrationMismatch, match="checkpoint: the schedule has None, this request other"):
        check_request(schedule, replace(request, checkpoint="other"))


EDITS = {
    "another schema": ({"schema": "sglang-dpcache-schedule-v1"}, SchemaViolation, "schema"),
    "another predictor": ({"predictor": {"order": 2}}, SchemaViolation, "predictor"),
    "another objective": ({"objective": "mine"}, SchemaViolation, "objective"),
    "no commit": ({"source_commit": ""}, SchemaViolation, "source_commit"),
    "no step number": ({"full_steps": [0, True, 3]}, SchemaViolation, "full_steps"),
    "no digest": ({"calibration": {"num_samples": 1}}, SchemaViolation, "manifest_sha256"),
    "a step twice": ({"full_steps": [0, 1, 1]}, SemanticsViolation, "ascending"),
    "a step after the end": ({"full_steps": [0, 1, 999]}, SemanticsViolation, "ascending"),
    "too few leading steps": ({"mandatory_full_steps": [0]}, SchemaViolation, "mandatory_full_steps"),
    "leading steps that do not lead": (
        {"mandatory_full_steps": [1, 2]},
        SemanticsViolation,
        "expected the first steps",
    ),
    "leading steps that are not computed": (
        {"mandatory_full_steps": [0, 1, 2]},
        SemanticsViolation,
        "does not begin",
    ),
    "another count": ({"num_full_steps": 9}, SemanticsViolation, "num_full_steps"),
    "a gap": ({"max_gap": 1}, SemanticsViolation, "max_gap"),
    "no step": ({"full_steps": [], "num_full_steps": 0}, SemanticsViolation, "does not begin"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_schedule_that_was_edited_by_hand_is_refused(edit, document):
    change, error, said = EDITS[edit]
    fields = json.loads(written("sglang-dpcache", document).text)
    with pytest.raises(error, match=said):
        read_schedule(json.dumps(fields | change).encode())


def test_a_last_step_that_is_forced_must_be_computed(document):
    fields = json.loads(written("sglang-dpcache", document).text) | {"force_last_full": True}
    read_schedule(json.dumps(fields).encode())
    fields |= {"full_steps": fields["full_steps"][:-1], "num_full_steps": 2, "max_gap": None}
    with pytest.raises(SemanticsViolation, match="force_last_full"):
        read_schedule(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [({"dtype": "float32"}, "dtype"), ({"timesteps": [1.0]}, "timesteps"), ({"more": 1}, "more")],
)
def test_a_request_that_was_edited_by_hand_is_refused(change, said, document):
    fields = json.loads(written("sglang-dpcache", document).text)
    fields["request"] |= change
    with pytest.raises((SchemaViolation, SemanticsViolation), match=said):
        read_schedule(json.dumps(fields).encode())


def test_a_policy_is_bound_to_the_bytes_of_its_file(document):
    target = TARGETS["sglang-dpcache"]
    deployment = deployed(target, document, ID, {"quality": "lossless"})
    content = target.write(deployment).text.encode()
    bound = bound_to_configuration(target, deployment, content)
    assert bound.derived_from == ID
    assert msgspec.to_builtins(bound.target)["settings"] == {"quality": "lossless"}
    check_configuration(bound, content, "a.json")
    with pytest.raises(SignatureInvalid, match=r"a\.json is not the configuration"):
        check_configuration(bound, content + b" ", "a.json")
    with pytest.raises(UsageError, match="is bound to no configuration"):
        check_configuration(document, content, "a.json")
