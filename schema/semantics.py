"""Rules beyond the schema: how the parts of a PolicyDocument must agree.

1. sampler: `steps + 1` sigmas, strictly decreasing; `steps` timesteps, never increasing; `configDigest` is
   the digest of `config`; no hidden characters in the config's strings.
2. policy: every branch mask has `steps` entries and computes step 0; coefficients exactly where reused, and
   only on steps computed before. No branch is named twice.
   experts: the denoisers after the first, in their order; each takes over within the schedule and later than
   the one before it. Every mask computes each expert's first step, and no coefficients use residuals from before it.
3. budget: names the same branches as the policy, each with the sum of its mask; `nfe` is the largest of
   them.
4. model: names of denoisers and variants are unique; every file of a variant is of a kind that can be opened
   safely; a denoiser's config has no name that begins with an underscore and no hidden characters.
5. quality, of each shape: the held-out set is not the calibration set; a metric is named once per list, a baseline
   once per NFE; figures are plausible (`budc.schema.figures`).
6. time: real dates, `notAfter` later than `issuedAt`.
7. furtherShapes: no size twice; sigmas and timesteps of its own as in rule 1, both or neither; branches of its own as
   in rule 2, with the names and masks of the policy's.
8. what else format 1.1 added: `budc.schema.addition_rules`.
"""

from collections.abc import Iterable, Mapping, Sequence

from budc.schema import canonical
from budc.schema.addition_rules import check_additions
from budc.schema.additions import reports
from budc.schema.errors import SemanticsViolation, UnsafeWeights
from budc.schema.figures import check_figures
from budc.schema.mask import StepMask
from budc.schema.model_config import NOTE
from budc.schema.policy import BranchPolicy, Metric, ModelBinding, PolicyDocument, Quality, SamplerBinding
from budc.schema.predictor import Predictor
from budc.schema.sigmas import Sigmas
from budc.schema.timestamps import parse_time

SAFE_SUFFIXES = (".safetensors", ".onnx", ".onnx.data", ".onnx_data", ".json")
"""Files that a variant may list. Everything else is refused, pickles (.bin, .pt, .ckpt, .pkl) above all."""

_HIDDEN = (
    {*range(0x20), *range(0x7F, 0xA0), 0xFEFF}
    | {*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
)  # fmt: skip


def check(document: PolicyDocument) -> None:
    """Check all rules of this module, in their order.

    Raises:
        SemanticsViolation: a rule does not hold; the message names the field.
        UnsafeWeights: a variant lists a file of a kind that is not opened.
    """
    _check_sampler(document.sampler)
    _check_experts(document)
    _check_policy(document)
    _check_model(document.model)
    _check_further_shapes(document)
    check_additions(document)
    for where, quality in reports(document):
        _check_quality(where, quality)
    check_figures(document)
    issued = parse_time(document.issued_at, field="issuedAt")
    if document.not_after is not None and parse_time(document.not_after, field="notAfter") <= issued:
        raise SemanticsViolation(f"notAfter {document.not_after} is not after issuedAt {document.issued_at}")


def check_suffix(path: str) -> None:
    """Refuse a file that could run code when it is loaded, or that budc cannot read.

    Raises:
        UnsafeWeights: `path` does not end in one of `SAFE_SUFFIXES`.
    """
    if not path.endswith(SAFE_SUFFIXES):
        raise UnsafeWeights(f"{path} is neither safetensors nor ONNX nor JSON")


def _check_sampler(sampler: SamplerBinding) -> None:
    _check_schedule("sampler", sampler.sigmas, sampler.timesteps, sampler.steps)
    _refuse_hidden("sampler.config", sampler.config)
    expected = canonical.digest(sampler.config)
    if sampler.config_digest != expected:
        raise SemanticsViolation(
            f"sampler.configDigest is {sampler.config_digest}, but the config has {expected}"
        )


def _check_schedule(where: str, levels: Sequence[float], timesteps: Sequence[float], steps: int) -> None:
    try:
        sigmas = Sigmas.of(levels)
    except SemanticsViolation as error:
        raise SemanticsViolation(f"{where}: {error}") from None
    if sigmas.steps != steps:
        raise SemanticsViolation(f"{where}.sigmas has {len(sigmas)} values, expected steps + 1 = {steps + 1}")
    if len(timesteps) != steps:
        raise SemanticsViolation(f"{where}.timesteps has {len(timesteps)} values, expected steps = {steps}")
    for step in range(1, len(timesteps)):
        if timesteps[step] > timesteps[step - 1]:
            raise SemanticsViolation(
                f"{where}.timesteps[{step}] is {timesteps[step]}, above the {timesteps[step - 1]} before it"
            )


def _refuse_hidden(where: str, config: Mapping[str, object]) -> None:
    for key, value in config.items():
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        for item in items:
            if isinstance(item, str) and not _HIDDEN.isdisjoint(map(ord, item)):
                raise SemanticsViolation(f"{where}.{key} holds a control or invisible character")


def _check_experts(document: PolicyDocument) -> None:
    sampler = document.sampler
    listed = [expert.denoiser for expert in sampler.experts]
    expected = [denoiser.name for denoiser in document.model.denoisers[1:]]
    if listed != expected:
        raise SemanticsViolation(
            f"sampler.experts names {', '.join(listed) or 'no denoiser'}, "
            f"expected those after the first of model.denoisers: {', '.join(expected) or 'none'}"
        )
    previous = 0
    for index, step in enumerate(sampler.first_steps):
        if not previous < step < sampler.steps:
            raise SemanticsViolation(
                f"sampler.experts[{index}].firstStep is {step}, expected {previous + 1} to {sampler.steps - 1}"
            )
        previous = step


def _check_policy(document: PolicyDocument) -> None:
    budget = document.budget
    evaluations: dict[str, int] = {}
    for index, branch in enumerate(document.policy.branches):
        where = f"policy.branches[{index}]"
        mask = _check_branch(where, branch, document.sampler)
        for name in branch.names:
            if name in evaluations:
                raise SemanticsViolation(f"{where}.names repeats the branch {name}")
            evaluations[name] = mask.nfe
    if evaluations.keys() != budget.branches.keys():
        raise SemanticsViolation(
            f"budget.branches names {_listed(budget.branches)}, the policy has {_listed(evaluations)}"
        )
    for name, nfe in evaluations.items():
        if budget.branches[name] != nfe:
            raise SemanticsViolation(
                f"budget.branches.{name} is {budget.branches[name]}, but its mask computes {nfe} steps"
            )
    if budget.nfe != max(evaluations.values()):
        raise SemanticsViolation(
            f"budget.nfe is {budget.nfe}, but the largest branch has {max(evaluations.values())}"
        )


def _check_branch(where: str, branch: BranchPolicy, sampler: SamplerBinding) -> StepMask:
    try:
        mask = StepMask.of(branch.mask)
        if mask.steps != sampler.steps:
            raise SemanticsViolation(f"mask has {mask.steps} entries, expected steps = {sampler.steps}")
        Predictor.of(branch.predictor, mask, sampler.first_steps)
    except SemanticsViolation as error:
        raise SemanticsViolation(f"{where}: {error}") from None
    return mask


def _check_further_shapes(document: PolicyDocument) -> None:
    first, sampler, policy = document.shape, document.sampler, document.policy
    sizes = [
        (shape.frames, shape.height, shape.width) for shape in (first, *document.further_shapes) if shape
    ]
    for index, shape in enumerate(document.further_shapes):
        where = f"furtherShapes[{index}]"
        if sizes.index(sizes[index + 1]) <= index:
            raise SemanticsViolation(
                f"{where} is {shape.width} x {shape.height}, {shape.frames} frames, which is listed before"
            )
        if shape.sigmas is not None and shape.timesteps is not None:
            _check_schedule(where, shape.sigmas, shape.timesteps, sampler.steps)
        elif shape.sigmas is not None or shape.timesteps is not None:
            raise SemanticsViolation(f"{where} has one of sigmas and timesteps; a schedule needs both")
        if not shape.branches:
            continue
        if [(own.names, own.mask) for own in shape.branches] != [
            (branch.names, branch.mask) for branch in policy.branches
        ]:
            raise SemanticsViolation(f"{where}.branches has other names or masks than policy.branches")
        for row, branch in enumerate(shape.branches):
            _check_branch(f"{where}.branches[{row}]", branch, sampler)


def _check_model(model: ModelBinding) -> None:
    for index, denoiser in enumerate(model.denoisers):
        where = f"model.denoisers[{index}].config"
        _refuse_hidden(where, denoiser.config or {})
        if note := next((name for name in denoiser.config or {} if name.startswith(NOTE)), None):
            raise SemanticsViolation(f"{where} has {note}, which is a note of the library and no setting")
    _refuse_repeated("model.denoisers", (denoiser.name for denoiser in model.denoisers))
    _refuse_repeated("model.variants", (variant.name for variant in model.variants))
    for variant in model.variants:
        for path in variant.files:
            check_suffix(path)


def _check_quality(where: str, quality: Quality) -> None:
    calibration, held_out = quality.calibration, quality.held_out
    if held_out.size and calibration.size and held_out.digest == calibration.digest:
        raise SemanticsViolation(f"{where}.heldOut is the calibration set, so it was not held out")
    _refuse_repeated(f"{where}.metrics", _names(quality.metrics))
    _refuse_repeated(f"{where}.baselines", (f"{base.name} at {base.nfe}" for base in quality.baselines))
    for index, baseline in enumerate(quality.baselines):
        _refuse_repeated(f"{where}.baselines[{index}].metrics", _names(baseline.metrics))


def _names(metrics: Sequence[Metric]) -> Iterable[str]:
    return (metric.name for metric in metrics)


def _refuse_repeated(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SemanticsViolation(f"{where} holds {name} twice")
        seen.add(name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
