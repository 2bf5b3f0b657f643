"""Which sizes a model can make, as far as that is known without its folder."""

from __future__ import annotations

from budc.compiler.models.fit import Grid, folder_grid, grid
from budc.compiler.planning.published_parts import PUBLISHED
from budc.policies.profile import ModelProfile, embedded_folder


def known_grid(profile: ModelProfile) -> Grid | None:
    """Return the sizes of an embedded model, or of a shipped profile's published VAE; None for others."""
    if profile.embedded:
        return folder_grid(profile, embedded_folder(profile))
    if not profile.repository or profile.pipeline_class not in PUBLISHED:
        return None
    name, config = next(
        part for part in PUBLISHED[profile.pipeline_class] if part[0].startswith("Autoencoder")
    )
    return grid({"_class_name": name, **config}, profile.architecture.get(next(iter(profile.denoisers)), {}))
