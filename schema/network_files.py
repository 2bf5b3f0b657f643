"""Files of a network whose policy lists none: it is bound to tensor roots, which any safetensors files can have."""

import os
from collections.abc import Sequence
from pathlib import Path

from budc.schema.digests import tensor_root
from budc.schema.errors import WeightsMismatch, WeightsMissing
from budc.schema.policy import DenoiserBinding


def check_tensor_roots(folder: str | os.PathLike[str], denoisers: Sequence[DenoiserBinding]) -> list[str]:
    """Return the safetensors files of `folder` that hold the weights of `denoisers`: each one's in a file, or in all.

    Raises:
        WeightsMissing: there are no such files.
        WeightsMismatch: a denoiser's weights are neither in one of them nor in all of them together.
        UnsafeWeights: a file is malformed, or a tensor is in two of them.
    """
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise WeightsMissing(
            f"{folder} holds no safetensors file", remedy="give the folder of the network's state dict"
        )
    names = [path.name for path in paths]
    roots = {tensor_root([path]): [path.name] for path in paths}
    if len(denoisers) == 1 and denoisers[0].tensor_root not in roots:
        roots = {tensor_root(paths): names}
    for denoiser in denoisers:
        if denoiser.tensor_root not in roots:
            raise WeightsMismatch(
                f"{denoiser.name}: the weights in {folder} have tensor root {' and '.join(roots)}, "
                f"the policy is for {denoiser.tensor_root}"
            )
    return sorted({name for denoiser in denoisers for name in roots[denoiser.tensor_root]})
