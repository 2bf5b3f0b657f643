"""Checks: each setting that a policy is bound to, compared with the run that ComfyUI is about to do.

Each function compares one thing, as those of `budc.runtimes.diffusers.checks` do: differences go to a `SettingsCheck`,
which refuses them or lets the run be uncalibrated; a few are always refused. Nothing is changed.
"""

from typing import Any

from torch import count_nonzero

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.comfyui.conditioning_images import KEYS as IMAGE_KEYS
from budc.runtimes.comfyui.conditioning_images import check_images
from budc.runtimes.comfyui.families import EngineFamily
from budc.runtimes.comfyui.sampler import BINDING
from budc.runtimes.comfyui.sampling_run import SamplingRun
from budc.runtimes.sampling.solvers import solver_matrices
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import PolicyDocument

SAMPLERS = {"euler": "FlowMatchEulerDiscreteScheduler"}
"""ComfyUI's samplers that are a scheduler of diffusers, on flow matching."""

TRAIN_TIMESTEPS = 1000
"""What ComfyUI's networks count timesteps in."""

NEGATIVE_TEXT = "budc_negative_text"
"""Key of a conditioning: the text that the node "budc negative prompt" has encoded into it."""

_FLOW = "CONST"
"""The class of ComfyUI's parametrisations in which the network returns a velocity."""

_USE_NODE = 'connect the output of the node "budc sampler and sigmas" to a SamplerCustom node'
_TEXT_KEYS = {
    "cross_attn",
    "pooled_output",
    "model_conds",
    "uuid",
    "attention_mask",
    "guidance",
    "num_tokens",
    NEGATIVE_TEXT,
}


def check_schedule(document: PolicyDocument, run: SamplingRun) -> None:
    """Refuse a run of another number of steps or on other sigmas. These are always refused."""
    wanted, given = document.sampler.sigmas, run.sigmas.tolist()
    steps = document.sampler.steps
    if len(given) != steps + 1:
        raise CalibrationMismatch(
            f"steps: the policy has {steps}, this run asks for {len(given) - 1}", remedy=_USE_NODE
        )
    exact = run.sigmas.new_tensor(list(wanted)).tolist()
    for step, (expected, actual) in enumerate(zip(exact, given, strict=True)):
        if expected != actual:
            raise CalibrationMismatch(
                f"sigmas: the policy has {expected:.6g} at step {step}, this run has {actual:.6g}",
                remedy=_USE_NODE,
            )
    if given[0] < 1 and count_nonzero(run.latents):
        raise CalibrationMismatch(
            "latent image: the policy starts from noise alone, this run from an image",
            remedy="connect an empty latent",
        )
    if run.mask is not None:
        raise CalibrationMismatch(
            "noise mask: the policy generates whole images, this run only a part of one",
            remedy="remove the noise mask of the latent",
        )


def check_sampler(document: PolicyDocument, run: SamplingRun, settings: SettingsCheck) -> None:
    """Compare the solver, and what it depends on. Raises UnsupportedModel: the policy's has a setting unknown here."""
    sampler = document.sampler
    function = getattr(run.sampler, "sampler_function", None)
    own = getattr(function, BINDING, None)
    if own is not None:
        settings.require("scheduler", sampler.scheduler, own.scheduler, _USE_NODE)
        for name, value in sampler.config.items():
            settings.require(f"scheduler.{name}", value, own.config.get(name), _USE_NODE)
    else:
        name = getattr(function, "__name__", type(run.sampler).__name__).removeprefix("sample_")
        settings.require("scheduler", sampler.scheduler, SAMPLERS.get(name, name), _USE_NODE)
        churn = (getattr(run.sampler, "extra_options", None) or {}).get("s_churn", 0.0)
        settings.require("scheduler.s_churn", 0.0, float(churn), _USE_NODE)
    actual = sampler.config.get("num_train_timesteps", TRAIN_TIMESTEPS)
    settings.require("scheduler.num_train_timesteps", actual, TRAIN_TIMESTEPS)
    solver_matrices(sampler)


def check_parametrisation(patcher: Any, settings: SettingsCheck) -> None:
    """Check that the network of a MODEL returns a velocity of flow matching. Raises CalibrationMismatch."""
    parametrisation = patcher.get_model_object("model_sampling")
    names = [cls.__name__ for cls in type(parametrisation).__mro__]
    if _FLOW not in names:
        raise CalibrationMismatch(
            f"model sampling: the policy is for flow matching, a node has set {', '.join(names[1:3])}",
            remedy="remove that node; one that only shifts sigmas may stay",
        )
    settings.require("noise scale", 1.0, float(getattr(parametrisation, "noise_scale", 1.0)))


def check_guidance(
    document: PolicyDocument, run: SamplingRun, family: EngineFamily, settings: SettingsCheck
) -> None:
    """Compare guidance branches, scale and negative prompt.

    Other branches than the policy's are always refused.
    """
    sampler = document.sampler
    names = {name for branch in document.policy.branches for name in branch.names}
    if names != set(run.branches):
        asked = ", ".join(run.branches) or "none"
        raise CalibrationMismatch(
            f"branch: the policy has {', '.join(sorted(names))}, this run asks for {asked} (cfg {run.cfg:g})",
            remedy="use the guidance that the policy was compiled for; at cfg 1 ComfyUI runs no negative prompt",
        )
    guided = sampler.guidance_rule == "classifier-free"
    expected = sampler.guidance + family.cfg_offset if guided else 1.0
    settings.require("cfg", float(expected), run.cfg, f"set cfg to {expected:g}")
    if sampler.guidance_rule == "distilled":
        given = run.conditioning("cond")[0].get("guidance", 3.5)
        settings.require(
            "guidance", float(sampler.guidance), float(given), f"set FluxGuidance to {sampler.guidance:g}"
        )
    if type(run.guider).predict_noise.__qualname__ != "CFGGuider.predict_noise":
        settings.differ("guider", f"{type(run.guider).__name__} guides by a rule of its own", "use CFGGuider")
    negative = sampler.negative_prompt
    if negative is None or negative.text is None or "uncond" not in run.branches:
        return
    encoded = run.conditioning("uncond")[0].get(NEGATIVE_TEXT)
    remedy = 'connect the output of the node "budc negative prompt" as negative'
    if encoded is None:
        settings.differ("negative prompt", "cannot be read off its conditioning", remedy)
    else:
        settings.require("negative prompt", repr(negative.text), repr(encoded), remedy)


def check_conditioning(document: PolicyDocument, run: SamplingRun, settings: SettingsCheck) -> None:
    """Check that each branch is one plain text of the calibrated length.

    What makes ComfyUI run a branch more than once a step, or adds to its inputs, is always refused.
    """
    known = _TEXT_KEYS | (IMAGE_KEYS if document.images else frozenset())
    for branch in run.branches:
        entries = run.conditioning(branch)
        if len(entries) != 1:
            raise CalibrationMismatch(
                f"conditioning: {branch} has {len(entries)} texts, a policy runs one a step",
                remedy="encode one text; do not combine conditionings",
            )
        further = sorted(key for key, value in entries[0].items() if value is not None and key not in known)
        if further:
            raise CalibrationMismatch(
                f"conditioning: {branch} has {', '.join(further)} beside its text",
                remedy="remove areas, masks, ControlNet, reference images, hooks and ranges of steps",
            )
        text = entries[0].get("cross_attn")
        if text is not None:
            settings.require_text_tokens(document, text.shape[1], "compile a policy for this text length")
        if document.images:
            check_images(document, run.patcher.model.diffusion_model, entries[0], settings)


def check_size(document: PolicyDocument, run: SamplingRun, settings: SettingsCheck) -> None:
    """Compare frames, height and width."""
    actual = run.size
    shape = document.pipeline().shape_of(*actual)
    for field, value in zip(("frames", "height", "width"), actual, strict=True):
        settings.require(field, getattr(shape, field), value, "use the calibrated size for the empty latent")


def check_precision(document: PolicyDocument, patcher: Any, settings: SettingsCheck) -> None:
    """Compare what the network of a MODEL computes in."""
    actual = str(patcher.model.get_dtype_inference()).removeprefix("torch.")
    settings.require("dtype", document.pipeline().shape.dtype, actual, "load the model in that precision")
