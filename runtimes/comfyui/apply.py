"""A policy on a MODEL of ComfyUI, through the engine's own hooks.

    model = apply(model, document)              # a clone; the model itself stays as it was
    model = apply(high_noise, document, [low_noise])      # Wan2.2: the second takes over in the middle of a run

The network is shared by all clones of a model, and nothing is installed in it: other clones run as ever, under other
policies or none.
"""

from collections.abc import Sequence
from typing import Any

from budc.runtimes.admission.additions import COMFYUI, check_additions
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.comfyui.denoisers import Denoisers
from budc.runtimes.comfyui.families import engine_family
from budc.runtimes.comfyui.policy_runs import KEY, PolicyRuns
from budc.runtimes.comfyui.weights import verify_weights
from budc.schema.errors import CacheConflict, UsageError
from budc.schema.policy import PolicyDocument

ALLOW = "turn on allow_uncalibrated"


def apply(
    patcher: Any, document: PolicyDocument, later: Sequence[Any] = (), *, allow_uncalibrated: bool = False
) -> Any:
    """Return a clone of `patcher`, a MODEL, that runs under a policy.

    Args:
        patcher: the MODEL of the policy's first denoiser.
        document: the policy.
        later: those of the denoisers after it, in the policy's order.
        allow_uncalibrated: run, with a warning, where a setting is not the calibrated one.

    Raises:
        UsageError: the policy has more denoisers than MODELs are given, or fewer.
        UnsupportedVersion, UnsupportedModel: the policy is of a kind that is not run here, or for another network.
        WeightsMismatch: it is for other weights.
        CacheConflict: a policy is on a MODEL already.
    """
    check_additions(document, COMFYUI)
    patchers = (patcher, *later)
    for other in patchers:
        if other.get_attachment(KEY) is not None:
            raise CacheConflict(
                f"the policy {other.get_attachment(KEY).document.name} is on this MODEL already",
                remedy="connect the MODEL of the loader",
            )
    denoisers = document.model.denoisers
    if len(patchers) != len(denoisers):
        names = ", ".join(denoiser.name for denoiser in denoisers)
        raise UsageError(
            f"connected MODELs: the policy {document.name} has {len(denoisers)} ({names}), this node {len(patchers)}",
            remedy="connect the MODEL for high noise to model, and the one for low noise to low_noise_model"
            if len(denoisers) == 2
            else "leave low_noise_model unconnected",
        )
    settings = SettingsCheck(allow_uncalibrated, how_to_allow=ALLOW)
    for denoiser, other in zip(denoisers, patchers, strict=True):
        family = engine_family(denoiser.class_name, other.model.diffusion_model)
        verify_weights(other, denoiser, family, settings)
    runs = PolicyRuns(
        document,
        Denoisers(document.sampler, patchers, family),
        family,
        SettingsCheck(allow_uncalibrated, how_to_allow=ALLOW),
    )
    clone = patcher.clone()
    clone.set_attachments(KEY, runs)
    for kind, wrapper in runs.wrappers.items():
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    if runs.guide is not None:
        clone.set_model_sampler_cfg_function(runs.guide)
    return clone
