"""Other nodes on the same MODEL: what they have put on it that changes the network or the guidance."""

from collections.abc import Iterator, Mapping
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.schema.errors import CalibrationMismatch

_WRAPPERS = ("diffusion_model", "apply_model", "calc_cond_batch", "predict_noise", "sampler_sample")
_FUNCTIONS = (
    "model_function_wrapper",
    "sampler_cfg_function",
    "sampler_calc_cond_batch_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
)
_SPLIT = ("context_handler", "multigpu_clones")
"""Options that split a run into windows, or over devices."""
_BETWEEN_BLOCKS = ("dit", "double_block")
"""Patches that replace blocks, or come between them."""


def check_other_nodes(
    patcher: Any, options: Mapping[str, Any], settings: SettingsCheck, *, own: object = None, key: str = ""
) -> None:
    """Check that no other node changes the network or the guidance.

    Args:
        patcher: the MODEL.
        options: its options, as nodes and hooks have left them.
        settings: refuses a difference, or notes it.
        own: the policy's own function of guidance, which is no difference.
        key: the key of the policy's wrappers.

    Raises:
        CalibrationMismatch: one does. Always where a policy cannot run: where the run is split, or something comes
            between the blocks.
    """
    remedy = "remove the other node; a policy takes the place of other caches"
    patches = list(_patches(options))
    impossible = [name for name in _SPLIT if options.get(name)]
    impossible += [name for name in patches if name in _BETWEEN_BLOCKS]
    if impossible:
        raise CalibrationMismatch(
            f"nodes: another node has put {', '.join(impossible)} on this MODEL, which a policy cannot run with",
            remedy=remedy,
        )
    others = [*patches, *_wrappers(patcher, options, key)]
    others += [name for name in _FUNCTIONS if options.get(name) not in (None, [], own)]
    others += [name for name in patcher.object_patches if name.startswith("diffusion_model")]
    if others:
        settings.differ("nodes", f"another node has put {', '.join(others)} on this MODEL", remedy)


def _patches(options: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("patches", "patches_replace"):
        yield from (name for name, patches in _transformer(options, kind).items() if patches)


def _wrappers(patcher: Any, options: Mapping[str, Any], key: str) -> Iterator[str]:
    # Those of the options are there once a run has begun, and with hooks.
    wrappers = _transformer(options, "wrappers") or patcher.wrappers
    for kind in _WRAPPERS:
        for other, functions in wrappers.get(kind, {}).items():
            if functions and other != key:
                yield f"{kind} of {other}"


def _transformer(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = options.get("transformer_options", {}).get(name, {})
    return found
