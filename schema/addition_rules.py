"""Rules beyond the schema for what format 1.1 added, but for further shapes, whose rules are those of the first one.

1. sampler.negativePrompt: with classifier-free guidance only; a text where, and only where, it is fixed.
2. model.adapters: digests or scaled adapters where, and only where, the rule is "listed", and not both; one file is
   loaded once into a denoiser, and into one that there is.
3. images: height and width both or neither; a first or last frame once, and only for a video.
4. evaluation: only in a policy that is derived from the one that was evaluated.
5. guidance of a network's denoiser: a weight for each branch of the policy, adding up to 1. The largest is also the
   scale (`sampler.guidance`, and that of the experts), which is classifier-free where there are several branches.
"""

import math

from budc.schema.additions import all_metrics
from budc.schema.errors import SemanticsViolation
from budc.schema.policy import ModelBinding, PolicyDocument, SamplerBinding

_ROUNDING = 1e-6


def check_additions(document: PolicyDocument) -> None:
    """Check all rules of this module. Raises SemanticsViolation, which names the field."""
    _check_negative_prompt(document.sampler)
    _check_adapters(document.model)
    _check_images(document)
    _check_evaluations(document)
    _check_guidance(document)


def _check_negative_prompt(sampler: SamplerBinding) -> None:
    negative = sampler.negative_prompt
    if negative is None:
        return
    if sampler.guidance_rule != "classifier-free":
        raise SemanticsViolation(
            f"sampler.negativePrompt is set, but guidance is {sampler.guidance_rule}, which uses none"
        )
    if (negative.rule == "fixed") != (negative.text is not None):
        has = "no text" if negative.text is None else "a text"
        raise SemanticsViolation(f"sampler.negativePrompt is {negative.rule} and has {has}")


def _check_adapters(model: ModelBinding) -> None:
    adapters = model.adapters
    if (adapters.rule == "listed") != bool(adapters.digests or adapters.scaled):
        raise SemanticsViolation(
            f'model.adapters has rule "{adapters.rule}" and '
            f"{len(adapters.digests)} digests and {len(adapters.scaled)} scaled adapters"
        )
    if adapters.digests and adapters.scaled:
        raise SemanticsViolation(
            "model.adapters has both digests and scaled adapters, so that nobody can say which are loaded"
        )
    denoisers = [denoiser.name for denoiser in model.denoisers]
    loaded: set[tuple[str, str]] = set()
    for index, adapter in enumerate(adapters.scaled):
        if adapter.denoiser is not None and adapter.denoiser not in denoisers:
            raise SemanticsViolation(
                f"model.adapters.scaled[{index}] is for {adapter.denoiser}, which is none of model.denoisers"
            )
        for name in denoisers if adapter.denoiser is None else [adapter.denoiser]:
            if (adapter.file, name) in loaded:
                raise SemanticsViolation(
                    f"model.adapters.scaled[{index}] loads one file into {name} twice ({adapter.name})"
                )
            loaded.add((adapter.file, name))


def _check_images(document: PolicyDocument) -> None:
    roles: set[str] = set()
    for index, image in enumerate(document.images):
        where = f"images[{index}]"
        if (image.height is None) != (image.width is None):
            raise SemanticsViolation(f"{where} has one of height and width; a size needs both")
        if image.role == "reference":
            continue
        if image.role in roles:
            raise SemanticsViolation(f"{where} is a second {image.role}")
        roles.add(image.role)
        if document.shape is not None and document.shape.frames == 1:
            raise SemanticsViolation(f"{where} is a {image.role}, but shape.frames is 1, a single image")


def _check_evaluations(document: PolicyDocument) -> None:
    if document.derived_from is None and any(metric.evaluation for metric in all_metrics(document)):
        raise SemanticsViolation(
            "a metric is from an evaluation, but derivedFrom does not name the policy that was evaluated"
        )


def _check_guidance(document: PolicyDocument) -> None:
    sampler = document.sampler
    scales = [sampler.guidance, *(expert.guidance for expert in sampler.experts)]
    for index, (denoiser, scale) in enumerate(zip(document.model.denoisers, scales, strict=True)):
        where = f"model.denoisers[{index}].guidance"
        weights = {item.branch: item.weight for item in denoiser.guidance}
        if not weights:
            continue
        if weights.keys() != document.budget.branches.keys() or len(weights) != len(denoiser.guidance):
            raise SemanticsViolation(
                f"{where} has the branches {', '.join(item.branch for item in denoiser.guidance)}, "
                f"budget.branches has {', '.join(sorted(document.budget.branches))}"
            )
        if abs(math.fsum(weights.values()) - 1) > _ROUNDING:
            raise SemanticsViolation(f"{where} adds up to {math.fsum(weights.values()):g}, expected 1")
        if scale != max(weights.values()):
            raise SemanticsViolation(
                f"{where} has the scale {max(weights.values()):g}, the sampler {scale:g}"
            )
        if (sampler.guidance_rule == "classifier-free") != (len(weights) > 1):
            raise SemanticsViolation(
                f"{where} has {len(weights)} branches, guidanceRule is {sampler.guidance_rule}"
            )
