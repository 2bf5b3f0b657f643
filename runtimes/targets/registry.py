"""Every target by its name.

target = target_named("sglang-dpcache")
"""

import difflib
from collections.abc import Mapping
from typing import Final

from budc.option_names import option
from budc.runtimes.targets.cache_dit import CACHE_DIT
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.runtimes.targets.diffusers_magcache import DIFFUSERS_MAGCACHE
from budc.runtimes.targets.lightx2v import LIGHTX2V
from budc.runtimes.targets.openvino_genai import OPENVINO_GENAI
from budc.runtimes.targets.sd_cpp import SD_CPP
from budc.runtimes.targets.sglang_dpcache import SGLANG_DPCACHE
from budc.schema.errors import UnsupportedVersion, UsageError
from budc.schema.policy import PolicyDocument

TARGETS: Final[Mapping[str, DeploymentTarget]] = {
    target.name: target
    for target in (DIFFUSERS_MAGCACHE, LIGHTX2V, SGLANG_DPCACHE, CACHE_DIT, OPENVINO_GENAI, SD_CPP)
}


def target_named(name: str, source: str = "to") -> DeploymentTarget:
    """Return a target; `source` is the option that names it.

    Raises:
        UsageError: there is none of that name; the error names the nearest.
    """
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(name, TARGETS, n=1, cutoff=0.4)
    listed = ", ".join(TARGETS)
    raise UsageError(
        f"{option(source)}: no target named {name!r}",
        remedy=f"{option(source, near[0])}, or another of {listed}" if near else f"use one of {listed}",
    )


def first_blocks_of(document: PolicyDocument) -> int:
    """Return how many blocks run at a step that a policy reuses.

    Raises:
        UnsupportedVersion: it was made for an engine that this release does not know.
    """
    if document.target is None:
        return 0
    if document.target.name not in TARGETS:
        raise UnsupportedVersion(
            f"{document.name} was made for {document.target.name}, which this release does not know",
            remedy="upgrade budc",
        )
    return TARGETS[document.target.name].first_blocks
