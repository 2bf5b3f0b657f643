"""The report's figures, measured again on the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.cli.output.layers import Layers
    from budc.cli.verification.options import VerifyOptions
    from budc.schema.artifact import Artifact


def replay(artifact: Artifact, folder: Path, options: VerifyOptions, layers: Layers) -> None:
    """Measure the report's figures on the model in `folder`.

    Raises:
        BudcError: one differs by more than the tolerance, or the model cannot be measured.
    """
    from budc.cli.dependencies import MODEL_PACKAGES, model_libraries, require, require_ray
    from budc.cli.output.metric_labels import metric_label
    from budc.compiler.cluster import parse_cluster
    from budc.policies.artifact_profile import profile_of
    from budc.schema.plural import counted

    profile = profile_of(artifact.document, options.model)
    require(*MODEL_PACKAGES, *(["peft"] if options.lora else []))
    cluster = parse_cluster(options.ray, options.workers, options.gpus_per_worker)
    require_ray(cluster)
    with model_libraries():
        from budc.compiler.evaluation.replay import ReplayRequest
        from budc.compiler.evaluation.tolerance import agreed_tolerance
        from budc.compiler.workers.replay_workers import replay_on

        tolerance = agreed_tolerance(artifact.document.quality, options.tolerance)
        pairs = replay_on(
            cluster,
            ReplayRequest(
                document=artifact.document,
                folder=folder,
                samples=options.samples,
                tolerance=tolerance,
                profile=profile,
                prompts=options.held_out,
                device=options.device,
                lora=options.lora,
            ),
        )
    for pair in pairs:
        name, count = metric_label(pair.reported.name).title, pair.measured.samples
        detail = (
            f"{name} mean {pair.measured.mean:.4g} of {counted(count, 'sample')}, "
            f"reported {pair.reported.mean:.4g} of {pair.reported.samples} ({pair.rule(tolerance)})"
        )
        layers.passed("replay", printable(detail))
