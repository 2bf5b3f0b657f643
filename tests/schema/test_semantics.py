from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from budc.schema import canonical, semantics
from budc.schema.errors import BudcError, SemanticsViolation, UnsafeWeights
from budc.schema.mask import StepMask
from budc.schema.policy import (
    AdapterRule,
    BranchPolicy,
    ConditioningImage,
    Expert,
    FurtherShape,
    NegativePrompt,
    Policy,
    PolicyDocument,
    PromptSet,
    ScaledAdapter,
    Variant,
)

MakeDocument = Callable[..., PolicyDocument]
Change = Callable[[PolicyDocument], PolicyDocument]


def sampler(**fields: Any) -> Change:
    return lambda d: replace(d, sampler=replace(d.sampler, **fields))


def config(value: dict[str, Any]) -> Change:
    return sampler(config=value, config_digest=canonical.digest(value))


def budget(**fields: Any) -> Change:
    return lambda d: replace(d, budget=replace(d.budget, **fields))


def branch(**fields: Any) -> Change:
    return lambda d: replace(d, policy=replace(d.policy, branches=[replace(d.policy.branches[0], **fields)]))


def model(**fields: Any) -> Change:
    return lambda d: replace(d, model=replace(d.model, **fields))


def files(*names: str) -> Change:
    return model(variants=[Variant(name="original", files=dict.fromkeys(names, "a" * 64))])


def quality(**fields: Any) -> Change:
    return lambda d: replace(d, quality=replace(d.quality, **fields))


def top(**fields: Any) -> Change:
    return lambda d: replace(d, **fields)


def twice(part: str, field: str) -> Change:
    def change(document: PolicyDocument) -> PolicyDocument:
        owner = getattr(document, part)
        items = getattr(owner, field)
        return replace(document, **{part: replace(owner, **{field: [*items, *items]})})

    return change


def expert(denoiser: str, first_step: int) -> Expert:
    return Expert(denoiser=denoiser, first_step=first_step, guidance=3.0)


def further(*shapes: dict[str, Any], **fields: Any) -> Change:
    """Give a document further shapes, 64 x 32 and as long as the first, but for these fields."""

    def change(document: PolicyDocument) -> PolicyDocument:
        usual = {"height": 32, "width": 64, "frames": 9, "quality": document.quality}
        listed = [FurtherShape(**usual | own) for own in shapes or [fields]]
        return replace(document, further_shapes=listed)

    return change


ADAPTER = ScaledAdapter(name="style", file="0" * 64, scale=1.0)


# The document to start from has 4 steps, of which 0 and 2 are computed, and the branches cond and uncond.
MASK = [True, False, True, False]
BAD: dict[str, tuple[Change, type[BudcError], str]] = {
    "sigmas-too-few": (sampler(sigmas=[1.0, 0.5, 0.2, 0.0]), SemanticsViolation, "4 values, expected steps"),
    "sigmas-rising": (sampler(sigmas=[1.0, 0.5, 0.6, 0.2, 0.0]), SemanticsViolation, r"sigmas\[2\]"),
    "sigmas-repeated": (sampler(sigmas=[1.0, 0.5, 0.2, 0.0, 0.0]), SemanticsViolation, r"sigmas\[4\]"),
    "timesteps-too-many": (
        sampler(timesteps=[9, 8, 7, 6, 0]),
        SemanticsViolation,
        "5 values, expected steps",
    ),
    "timesteps-rising": (sampler(timesteps=[9, 8, 8.5, 1]), SemanticsViolation, r"timesteps\[2\]"),
    "steps-other": (sampler(steps=5), SemanticsViolation, "sigmas has 5 values"),
    "config-digest": (sampler(config={"shift": 3}), SemanticsViolation, "configDigest"),
    "config-hidden": (config({"kind": "a\u202eb"}), SemanticsViolation, "config.kind"),
    "config-hidden-in-list": (config({"kinds": ["a", "b\n"]}), SemanticsViolation, "config.kinds"),
    "mask-first-reused": (branch(mask=[False, *MASK[1:]]), SemanticsViolation, r"mask\[0\]"),
    "mask-too-short": (
        branch(mask=MASK[:3], predictor=[[], [1.0], []]),
        SemanticsViolation,
        "3 entries, expected steps",
    ),
    "predictor-too-short": (branch(predictor=[[], [1.0], []]), SemanticsViolation, "3 rows"),
    "predictor-on-computed": (
        branch(predictor=[[], [1], [1], [1]]),
        SemanticsViolation,
        "step 2 is computed",
    ),
    "predictor-missing": (branch(predictor=[[], [1], [], []]), SemanticsViolation, "step 3 is reused"),
    "predictor-too-deep": (branch(predictor=[[], [1, 1], [], [1]]), SemanticsViolation, "needs 2 residuals"),
    "branch-repeated": (branch(names=["cond", "cond"]), SemanticsViolation, "repeats the branch cond"),
    "branch-unbudgeted": (
        branch(names=["cond"]),
        SemanticsViolation,
        "names cond, uncond, the policy has cond",
    ),
    "branch-count": (budget(branches={"cond": 2, "uncond": 3}), SemanticsViolation, "uncond is 3"),
    "nfe": (budget(nfe=3), SemanticsViolation, "nfe is 3"),
    "denoiser-without-expert": (
        twice("model", "denoisers"),
        SemanticsViolation,
        "experts names no denoiser, expected those after the first of model.denoisers: transformer",
    ),
    "expert-without-denoiser": (
        sampler(experts=[expert("transformer_2", 2)]),
        SemanticsViolation,
        "names transformer_2, expected .*: none",
    ),
    "denoiser-twice": (
        lambda d: sampler(experts=[expert("transformer", 2)])(twice("model", "denoisers")(d)),
        SemanticsViolation,
        "denoisers holds transformer twice",
    ),
    "variant-twice": (twice("model", "variants"), SemanticsViolation, "variants holds original twice"),
    "pickle-bin": (files("transformer/pytorch_model.bin"), UnsafeWeights, "pytorch_model.bin"),
    "pickle-pt": (files("a.pt"), UnsafeWeights, "a.pt"),
    "pickle-ckpt": (files("a.safetensors", "b.ckpt"), UnsafeWeights, "b.ckpt"),
    "pickle-pkl": (files("a.json.pkl"), UnsafeWeights, "a.json.pkl"),
    "pickle-upper-case": (files("a.SAFETENSORS"), UnsafeWeights, "a.SAFETENSORS"),
    "code": (files("modeling.py"), UnsafeWeights, "modeling.py"),
    "adapters-listed-twice-over": (
        model(adapters=AdapterRule(rule="listed", digests=["sha256:" + "0" * 64], scaled=[ADAPTER])),
        SemanticsViolation,
        "both digests and scaled adapters",
    ),
    "adapter-for-nobody": (
        model(adapters=AdapterRule(rule="listed", scaled=[replace(ADAPTER, denoiser="vae")])),
        SemanticsViolation,
        r"scaled\[0\] is for vae, which is none of model.denoisers",
    ),
    "adapter-twice": (
        model(adapters=AdapterRule(rule="listed", scaled=[ADAPTER, replace(ADAPTER, scale=0.5)])),
        SemanticsViolation,
        r"scaled\[1\] loads one file into transformer twice",
    ),
    "adapter-in-all-and-in-one": (
        model(
            adapters=AdapterRule(rule="listed", scaled=[ADAPTER, replace(ADAPTER, denoiser="transformer")])
        ),
        SemanticsViolation,
        r"scaled\[1\] loads one file into transformer twice",
    ),
    "scaled-adapters-unasked": (
        model(adapters=AdapterRule(rule="none", scaled=[ADAPTER])),
        SemanticsViolation,
        '"none" and 0 digests and 1 scaled adapters',
    ),
    "negative-prompt-without-text": (
        sampler(negative_prompt=NegativePrompt(rule="fixed")),
        SemanticsViolation,
        "negativePrompt is fixed and has no text",
    ),
    "negative-prompt-that-varied-with-text": (
        sampler(negative_prompt=NegativePrompt(rule="varied", text="blurred")),
        SemanticsViolation,
        "negativePrompt is varied and has a text",
    ),
    "negative-prompt-unused": (
        sampler(guidance_rule="distilled", negative_prompt=NegativePrompt(rule="fixed", text="blurred")),
        SemanticsViolation,
        "negativePrompt is set, but guidance is distilled",
    ),
    "image-of-half-a-size": (
        top(images=[ConditioningImage(role="reference", height=64)]),
        SemanticsViolation,
        r"images\[0\] has one of height and width",
    ),
    "first-frame-twice": (
        top(images=[ConditioningImage(role="first-frame"), ConditioningImage(role="first-frame")]),
        SemanticsViolation,
        r"images\[1\] is a second first-frame",
    ),
    "first-frame-of-a-picture": (
        lambda d: replace(
            d, shape=replace(d.shape, frames=1), images=[ConditioningImage(role="first-frame")]
        ),
        SemanticsViolation,
        r"images\[0\] is a first-frame, but shape.frames is 1",
    ),
    "evaluation-of-nothing": (
        lambda d: quality(metrics=[replace(d.quality.metrics[0], evaluation="sha256:" + "0" * 64)])(d),
        SemanticsViolation,
        "derivedFrom does not name the policy that was evaluated",
    ),
    "further-shape-is-the-first": (
        further(height=64),
        SemanticsViolation,
        r"furtherShapes\[0\] is 64 x 64, 9",
    ),
    "further-shape-twice": (further({}, {}), SemanticsViolation, r"furtherShapes\[1\] is 64 x 32, 9"),
    "further-shape-without-timesteps": (
        further(sigmas=[1.0, 0.5, 0.2, 0.1, 0.0]),
        SemanticsViolation,
        r"furtherShapes\[0\] has one of sigmas and timesteps",
    ),
    "further-shape-of-other-steps": (
        further(sigmas=[1.0, 0.5, 0.0], timesteps=[9, 8]),
        SemanticsViolation,
        r"furtherShapes\[0\].sigmas has 3 values",
    ),
    "further-shape-whose-sigmas-rise": (
        further(sigmas=[1.0, 0.5, 0.6, 0.2, 0.0], timesteps=[9, 8, 7, 6]),
        SemanticsViolation,
        r"furtherShapes\[0\]: sigmas\[2\]",
    ),
    "further-shape-whose-timesteps-rise": (
        further(sigmas=[1.0, 0.5, 0.4, 0.2, 0.0], timesteps=[9, 8, 8.5, 6]),
        SemanticsViolation,
        r"furtherShapes\[0\].timesteps\[2\]",
    ),
    "further-shape-of-another-mask": (
        further(branches=[BranchPolicy.of(["cond", "uncond"], [[], [1.0], [1.0], []])]),
        SemanticsViolation,
        r"furtherShapes\[0\].branches has other names or masks",
    ),
    "further-shape-of-other-branches": (
        further(branches=[BranchPolicy.of(["cond"], [[], [1.0], [], [1.0]])]),
        SemanticsViolation,
        r"furtherShapes\[0\].branches has other names or masks",
    ),
    "further-shape-that-forecasts-too-soon": (
        further(branches=[BranchPolicy.of(["cond", "uncond"], [[], [1.0, 1.0], [], [1.0]])]),
        SemanticsViolation,
        r"furtherShapes\[0\].branches\[0\]: predictor\[1\] needs 2",
    ),
    "further-shape-of-the-calibration-set": (
        lambda d: further(quality=replace(d.quality, held_out=d.quality.calibration))(d),
        SemanticsViolation,
        r"furtherShapes\[0\].quality.heldOut is the calibration set",
    ),
    "further-shape-metric-twice": (
        lambda d: further(quality=replace(d.quality, metrics=[*d.quality.metrics, *d.quality.metrics]))(d),
        SemanticsViolation,
        r"furtherShapes\[0\].quality.metrics holds latent-mse twice",
    ),
    "further-shape-of-impossible-figures": (
        lambda d: further(quality=replace(d.quality, held_out=replace(d.quality.held_out, size=4)))(d),
        SemanticsViolation,
        r"furtherShapes\[0\].quality.metrics\[0\] \(latent-mse\) has 128 samples of 4",
    ),
    "adapters-unlisted": (model(adapters=AdapterRule(rule="listed")), SemanticsViolation, "0 digests"),
    "adapters-listed-anyway": (
        model(adapters=AdapterRule(rule="any", digests=["sha256:" + "0" * 64])),
        SemanticsViolation,
        "1 digests",
    ),
    "held-out-calibration": (
        quality(held_out=PromptSet(digest="sha256:" + "3" * 64, size=24)),
        SemanticsViolation,
        "heldOut",
    ),
    "metric-twice": (twice("quality", "metrics"), SemanticsViolation, "metrics holds latent-mse twice"),
    "baseline-twice": (twice("quality", "baselines"), SemanticsViolation, "baselines holds euler at 2 twice"),
    "no-such-day": (top(issued_at="2026-02-30T00:00:00Z"), SemanticsViolation, "issuedAt"),
    "no-such-hour": (top(not_after="2027-01-01T24:00:00Z"), SemanticsViolation, "notAfter"),
    "expired-when-issued": (top(not_after="2026-07-01T12:00:00Z"), SemanticsViolation, "not after issuedAt"),
}


@pytest.fixture
def document(make_document: MakeDocument) -> PolicyDocument:
    return make_document(steps=4, nfe=2)


@pytest.mark.parametrize("name", BAD)
def test_a_document_that_contradicts_itself_is_refused(document: PolicyDocument, name: str) -> None:
    change, error, message = BAD[name]
    with pytest.raises(error, match=message):
        semantics.check(change(document))


GOOD: dict[str, Change] = {
    "as-it-is": lambda document: document,
    "timesteps-repeated": sampler(timesteps=[999, 999, 500, 500]),
    "no-calibration": quality(
        calibration=PromptSet(digest="sha256:" + "3" * 64, size=0),
        held_out=PromptSet(digest="sha256:" + "3" * 64, size=128),
    ),
    "onnx": files("onnx/full.onnx", "onnx/full.onnx.data", "onnx/reuse.onnx_data", "config.json"),
    "listed-adapters": model(adapters=AdapterRule(rule="listed", digests=["sha256:" + "0" * 64])),
    "scaled-adapters": model(
        adapters=AdapterRule(rule="listed", scaled=[ADAPTER, replace(ADAPTER, file="1" * 64)])
    ),
    "negative-prompt-that-is-empty": sampler(negative_prompt=NegativePrompt(rule="fixed", text="")),
    "negative-prompt-that-varied": sampler(negative_prompt=NegativePrompt(rule="varied")),
    "images": top(
        images=[
            ConditioningImage(role="first-frame"),
            ConditioningImage(role="last-frame", height=64, width=64),
            ConditioningImage(role="reference"),
            ConditioningImage(role="reference"),
        ]
    ),
    "evaluation": lambda d: replace(
        quality(metrics=[replace(d.quality.metrics[0], evaluation="sha256:" + "0" * 64)])(d),
        derived_from="sha256:" + "1" * 64,
    ),
    "further-shapes": further({}, {"frames": 5}, {"width": 32}),
    "further-shape-with-a-schedule": further(sigmas=[1.0, 0.5, 0.2, 0.1, 0.0], timesteps=[9, 8, 7, 7]),
    "further-shape-with-predictors": further(
        branches=[BranchPolicy.of(["cond", "uncond"], [[], [0.5], [], [2.0, -1.0]])]
    ),
    "expires": top(not_after="2026-07-01T12:00:01Z"),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_but_consistent_documents_are_accepted(document: PolicyDocument, name: str) -> None:
    semantics.check(GOOD[name](document))


def test_branches_may_have_masks_of_their_own(document: PolicyDocument) -> None:
    rows = {"cond": [[], [1.0], [], [2.0, -1.0]], "uncond": [[], [1.0], [1.0], [0.5]]}
    document = replace(document, policy=Policy.of(document.policy.payload, rows))
    with pytest.raises(SemanticsViolation, match="uncond is 2, but its mask computes 1"):
        semantics.check(document)
    document = budget(branches={"cond": 2, "uncond": 1})(document)
    semantics.check(document)
    assert document.policy.for_branch("uncond").step_mask() == StepMask.from_compute_steps(4, [0])
    assert document.policy.for_branch("cond").step_predictor().terms == 2
    with pytest.raises(SemanticsViolation, match="'other', only cond, uncond"):
        document.policy.for_branch("other")


def split(*experts: Expert, denoisers: int | None = None) -> Change:
    """Give a document as many denoisers as are asked for, transformer, transformer_2, …, and these experts."""

    def change(document: PolicyDocument) -> PolicyDocument:
        (first,) = document.model.denoisers
        count = len(experts) if denoisers is None else denoisers - 1
        more = [replace(first, name=f"transformer_{index + 2}") for index in range(count)]
        return sampler(experts=list(experts))(model(denoisers=[first, *more])(document))

    return change


BAD_EXPERTS: dict[str, tuple[Change, str]] = {
    "missing": (split(denoisers=2), "experts names no denoiser, expected .* transformer_2"),
    "too-few": (
        split(expert("transformer_2", 2), denoisers=3),
        "names transformer_2, expected .* transformer_2, transformer_3",
    ),
    "too-many": (split(expert("transformer_2", 2), denoisers=1), "names transformer_2, expected .*: none"),
    "other-name": (split(expert("low_noise", 2)), "names low_noise, expected .* transformer_2"),
    "first-one": (split(expert("transformer", 2)), "names transformer, expected .* transformer_2"),
    "other-order": (
        split(expert("transformer_3", 2), expert("transformer_2", 3)),
        "names transformer_3, transformer_2",
    ),
    "after-the-end": (split(expert("transformer_2", 4)), r"experts\[0\].firstStep is 4, expected 1 to 3"),
    "at-the-beginning": (split(expert("transformer_2", 0)), r"experts\[0\].firstStep is 0, expected 1 to 3"),
    "at-once": (
        split(expert("transformer_2", 2), expert("transformer_3", 2)),
        r"experts\[1\].firstStep is 2, expected 3 to 3",
    ),
    "backwards": (
        split(expert("transformer_2", 3), expert("transformer_3", 2)),
        r"experts\[1\].firstStep is 2, expected 4 to 3",
    ),
    "begins-with-reuse": (
        split(expert("transformer_2", 1)),
        r"branches\[0\]: mask\[1\] is false, but another denoiser's first step is there",
    ),
}


@pytest.mark.parametrize("name", BAD_EXPERTS)
def test_experts_that_do_not_fit_are_refused(document: PolicyDocument, name: str) -> None:
    change, message = BAD_EXPERTS[name]
    with pytest.raises(SemanticsViolation, match=message):
        semantics.check(change(document))


def test_coefficients_do_not_reach_back_over_a_first_step(document: PolicyDocument) -> None:
    rows = [[], [1.0], [], [2.0, -1.0]]
    semantics.check(branch(predictor=rows)(document))
    semantics.check(split(expert("transformer_2", 2))(document))
    reaching = split(expert("transformer_2", 2))(branch(predictor=rows)(document))
    with pytest.raises(
        SemanticsViolation, match=r"predictor\[3\] needs 2 residuals, but only 1 come after .* 2"
    ):
        semantics.check(reaching)


def test_every_branch_computes_a_first_step(document: PolicyDocument) -> None:
    rows = {"cond": [[], [1.0], [], [1.0]], "uncond": [[], [], [1.0], [1.0]]}
    document = replace(document, policy=Policy.of(document.policy.payload, rows))
    semantics.check(document)
    with pytest.raises(SemanticsViolation, match=r"branches\[1\]: mask\[2\] is false"):
        semantics.check(split(expert("transformer_2", 2))(document))


def test_every_step_has_its_denoiser_and_its_guidance(document: PolicyDocument) -> None:
    experts = [expert("transformer_2", 2), Expert(denoiser="transformer_3", first_step=3, guidance=1.5)]
    shared = split(*experts)(branch(mask=[True, False, True, True], predictor=[[], [1.0], [], []])(document))
    shared = budget(nfe=3, branches={"cond": 3, "uncond": 3})(shared)
    semantics.check(shared)
    assert [shared.sampler.expert_at(step) for step in range(4)] == [0, 0, 1, 2]
    assert [shared.sampler.guidance_at(step) for step in range(4)] == [5.0, 5.0, 3.0, 1.5]
    assert document.sampler.first_steps == ()
    assert [document.sampler.guidance_at(step) for step in range(4)] == [5.0] * 4
