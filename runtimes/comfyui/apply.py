"""A policy on a MODEL of ComfyUI, through the engine's own hooks.

    model = apply(model, document)      # a clone; the model itself stays as it was

The network is shared by all clones of a model, and nothing is installed in it: other clones run as ever, under other
policies or none.
"""

from typing import Any

from budc.runtimes.admission.additions import COMFYUI, check_additions
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.comfyui.families import engine_family
from budc.runtimes.comfyui.policy_runs import KEY, PolicyRuns
from budc.runtimes.comfyui.weights import verify_weights
from budc.schema.errors import CacheConflict, UnsupportedModel
from budc.schema.policy import PolicyDocument

ALLOW = "turn on allow_uncalibrated"


def apply(patcher: Any, document: PolicyDocument, *, allow_uncalibrated: bool = False) -> Any:
    """Return a clone of `patcher`, a MODEL, that runs under a policy.

    Raises:
        UnsupportedVersion, UnsupportedModel: the policy is of a kind that is not run here, or for another network.
        WeightsMismatch: it is for other weights.
        CacheConflict: a policy is on the MODEL already.
    """
    check_additions(document, COMFYUI)
    if patcher.get_attachment(KEY) is not None:
        raise CacheConflict(
            f"the policy {patcher.get_attachment(KEY).document.name} is on this MODEL already",
            remedy="connect the MODEL of the loader",
        )
    if len(document.model.denoisers) != 1:
        raise UnsupportedModel(
            f"{document.name} is for {len(document.model.denoisers)} denoisers, in ComfyUI one can be run",
            remedy="run it with the diffusers runtime",
        )
    denoiser = document.model.denoisers[0]
    network = patcher.model.diffusion_model
    family = engine_family(denoiser.class_name, network)
    settings = SettingsCheck(allow_uncalibrated, how_to_allow=ALLOW)
    verify_weights(patcher, denoiser, family, settings)
    runs = PolicyRuns(document, network, family, SettingsCheck(allow_uncalibrated, how_to_allow=ALLOW))
    clone = patcher.clone()
    clone.set_attachments(KEY, runs)
    for kind, wrapper in runs.wrappers.items():
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    if runs.guide is not None:
        clone.set_model_sampler_cfg_function(runs.guide)
    return clone
