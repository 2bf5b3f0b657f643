"""Rules beyond the schema: how the parts of an EvaluationDocument must agree, and when it is one of a policy.

1. Settings are named once, methods once in a setting, metrics once in a method. Every setting has the method "policy",
   and either a shape or, of a network without a pipeline, the shape of its latents.
2. No metric has more samples than its setting has prompts; `mean`, `p95` and `worst` are plausible for its direction.
3. Values prompt by prompt are as many as the metric's samples, and give its mean and its worst.
4. The method "full" has as many evaluations as the setting has steps, and no latent error.
5. Frames are of prompts that the setting has, each rank and each prompt once, no larger than the setting's shape, and
   ranked by a metric that the policy has.
6. `issuedAt` is a real date.

Whether plausible figures are true is not judged here: whoever signs an evaluation vouches for them.
"""

import math
from collections.abc import Iterable, Sequence

from budc.schema.errors import NotEvaluated, SemanticsViolation
from budc.schema.evaluation import EvaluationDocument, MethodResult, SettingResult
from budc.schema.figures import check_metric
from budc.schema.policy import PolicyDocument
from budc.schema.report_names import CALIBRATED, FULL, HIGHER_IS_BETTER, LATENT_MSE, POLICY
from budc.schema.timestamps import parse_time


def check(document: EvaluationDocument) -> None:
    """Check all rules of this module. Raises SemanticsViolation, which names the field."""
    _refuse_repeated("settings", (setting.name for setting in document.settings))
    for index, setting in enumerate(document.settings):
        where = f"settings[{index}] ({setting.name})"
        _refuse_repeated(f"{where}.methods", (method.name for method in setting.methods))
        if (setting.shape is None) is (not setting.latents):
            raise SemanticsViolation(
                f"{where} has shape and latents, or neither: a pipeline has a shape, a network latents"
            )
        if setting.method(POLICY) is None:
            raise SemanticsViolation(f"{where} has no method {POLICY}: it says nothing of the policy")
        for method in setting.methods:
            _check_method(f"{where}.{method.name}", method, setting.prompts.size)
        _check_full(where, setting)
        _check_frames(where, setting)
    parse_time(document.issued_at, field="issuedAt")


def check_policy(document: EvaluationDocument, policy_id: str, policy: PolicyDocument) -> None:
    """Check that an evaluation is of this policy, and that what it calls the calibrated setting is the policy's.

    Raises:
        NotEvaluated: it is of another policy, in another setting, or on the policy's own calibration prompts.
    """
    if document.policy != policy_id:
        raise NotEvaluated(f"it is of the policy {document.policy}, another one or another revision")
    setting = document.setting(CALIBRATED)
    if setting is None:
        return
    sampler = policy.sampler
    expected = {
        "scheduler": (sampler.scheduler, setting.scheduler),
        "configDigest": (sampler.config_digest, setting.config_digest),
        "steps": (full_steps(policy), setting.steps),
        "guidance": (sampler.guidance, setting.guidance),
        "shape": (policy.shape, setting.shape),
        "latents": (list(policy.model.latents), list(setting.latents)),
    }
    for field, (calibrated, claimed) in expected.items():
        if calibrated != claimed:
            raise NotEvaluated(
                f"the setting that it calls {CALIBRATED} has another {field} than the policy: "
                f"{claimed}, not {calibrated}"
            )
    branches = policy.budget.branches.values()
    measured, expected_nfe = setting.method(POLICY), sum(branches) / len(branches)
    if measured is not None and not math.isclose(measured.nfe, expected_nfe, rel_tol=1e-9):
        raise NotEvaluated(f"it took {measured.nfe:g} evaluations, and the policy takes {expected_nfe:g}")
    if setting.prompts.digest == policy.quality.calibration.digest:
        raise NotEvaluated("it was measured on the prompts that the policy was searched on")


def full_steps(policy: PolicyDocument) -> int:
    """Return the steps of the full run that a policy was measured against."""
    full = (baseline.nfe for baseline in policy.quality.baselines if baseline.name == FULL)
    return next(full, policy.sampler.steps)


def _check_method(where: str, method: MethodResult, prompts: int) -> None:
    _refuse_repeated(f"{where}.metrics", (metric.name for metric in method.metrics))
    for metric in method.metrics:
        place = f"{where}.{metric.name}"
        check_metric(place, metric, prompts, HIGHER_IS_BETTER.get(metric.name))
        if (values := method.samples.get(metric.name)) is not None:
            _check_values(place, metric.samples, (metric.mean, metric.worst), values)
    for name in method.samples:
        if method.metric(name) is None:
            raise SemanticsViolation(f"{where}.samples has {name}, which is none of the metrics")


def _check_values(where: str, count: int, figures: tuple[float, float], values: Sequence[float]) -> None:
    if len(values) != count:
        raise SemanticsViolation(f"{where} has {count} samples and {len(values)} values")
    mean, worst = figures
    actual = math.fsum(values) / count
    if not _equal(mean, actual, max(map(abs, values))):
        raise SemanticsViolation(f"{where} has the mean {mean:g}, its values have {actual:g}")
    if worst not in (min(values), max(values)):
        raise SemanticsViolation(f"{where}: worst is {worst:g}, which is neither end of its values")


def _equal(value: float, other: float, scale: float) -> bool:
    return abs(value - other) <= 1e-9 * scale


def _check_full(where: str, setting: SettingResult) -> None:
    full = setting.method(FULL)
    if full is None:
        return
    if full.nfe != setting.steps:
        raise SemanticsViolation(
            f"{where}: the full run has {full.nfe:g} evaluations, and the setting {setting.steps} steps"
        )
    error = full.metric(LATENT_MSE)
    if error is not None and error.worst != 0:
        raise SemanticsViolation(f"{where} says that the full run differs from itself by {error.worst:g}")


def _check_frames(where: str, setting: SettingResult) -> None:
    kept, shape, policy = setting.frames, setting.shape, setting.method(POLICY)
    if kept is None:
        return
    if shape is None:
        raise SemanticsViolation(f"{where}.frames: a network without a pipeline has none")
    _refuse_repeated(f"{where}.frames", (prompt.rank for prompt in kept.prompts))
    _refuse_repeated(f"{where}.frames", (f"prompt {prompt.prompt}" for prompt in kept.prompts))
    for prompt in kept.prompts:
        if prompt.prompt >= setting.prompts.size:
            raise SemanticsViolation(
                f"{where}.frames is of the prompt {prompt.prompt}, and there are {setting.prompts.size}, from 0 on"
            )
    if kept.height > shape.height or kept.width > shape.width or kept.frames > shape.frames:
        raise SemanticsViolation(
            f"{where}.frames has {kept.frames} of {kept.height} × {kept.width}, "
            f"and the setting {shape.frames} of {shape.height} × {shape.width}"
        )
    if policy is None or policy.metric(kept.ranked_by) is None:
        raise SemanticsViolation(
            f"{where}.frames is ranked by {kept.ranked_by}, which the policy does not have"
        )


def _refuse_repeated(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SemanticsViolation(f"{where} has {name} twice")
        seen.add(name)
