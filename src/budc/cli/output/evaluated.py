"""What an evaluation measured and what its file says, as a page of text or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.cli.output.artifact import NOT_VERIFIED
from budc.cli.output.metric_labels import metric_label
from budc.cli.output.tables import MISSING, fields, table
from budc.compiler.comparison.ahead import methods_ahead
from budc.schema.kept_frames import frames_folder
from budc.schema.plural import counted
from budc.schema.printable import printable
from budc.schema.report_names import FULL, PSNR

if TYPE_CHECKING:
    from budc.schema.attestation import Attestation
    from budc.schema.evaluation import EvaluationDocument, MethodResult, SettingResult


EXACT = "exact"


def written(path: Path, document: EvaluationDocument, attestation: Attestation | None) -> str:
    """Return an evaluation that was written as a page of text: a table for each setting."""
    wrote = [("wrote", printable(str(path)))]
    if any(setting.frames is not None for setting in document.settings):
        wrote.append(("frames", printable(f"{frames_folder(path)}/")))
    return _page([*wrote, *_of(document), *_by(attestation)], document)


def written_record(path: Path, document: EvaluationDocument) -> dict[str, object]:
    """Return an evaluation that was written as one JSON object."""
    import msgspec

    return {"path": str(path), **msgspec.to_builtins(document)}


def inspected(attestation: Attestation) -> str:
    """Return the page of an evaluation that nobody has verified."""
    return _page([*about(attestation), ("", NOT_VERIFIED)], attestation.document)


def inspected_record(attestation: Attestation) -> dict[str, object]:
    """Return an evaluation that nobody has verified as one JSON object."""
    import msgspec

    return {
        "verified": False,
        "evaluation": attestation.digest,
        "signed": bool(attestation.signatures),
        "claimedKeyIds": [signature.keyid for signature in attestation.signatures],
        "hint": attestation.hint,
        "document": msgspec.to_builtins(attestation.document),
    }


def about(attestation: Attestation) -> list[tuple[str, str]]:
    """Return what an evaluation is of, and who says that they signed it."""
    return [*_of(attestation.document), *_by(attestation)]


def _of(document: EvaluationDocument) -> list[tuple[str, str]]:
    prompts = document.settings[0].prompts.size
    return [
        ("policy", printable(f"{document.policy_name}, {document.policy}")),
        ("measured", printable(f"{counted(prompts, 'prompt')} on {document.device}, {document.issued_at}")),
        *(
            ("not", printable(f"{metric_label(note.name).title}: {note.reason}"))
            for note in document.not_measured
        ),
    ]


def _by(attestation: Attestation | None) -> list[tuple[str, str]]:
    if attestation is None or not attestation.signatures:
        return [("signed by", "nobody; `budc sign FILE --key KEY` signs it")]
    hint = attestation.hint or "a key that it does not name"
    keys = "\n".join(printable(signature.keyid or hint) for signature in attestation.signatures)
    return [("evaluation", attestation.digest), ("signed by", keys)]


def _page(pairs: list[tuple[str, str]], document: EvaluationDocument) -> str:
    return "\n\n".join([fields(pairs), *(_setting(setting) for setting in document.settings)])


def _setting(setting: SettingResult) -> str:
    names = [metric.name for metric in setting.methods[0].metrics]
    titles = [metric_label(name).title for name in names]
    headers = ["method", "NFE", "seconds", *titles, *(f"{title} worst" for title in titles)]
    rows = [
        [
            method.title,
            f"{method.nfe:.4g}",
            MISSING if method.latency is None else f"{method.latency.median:.3g}",
            *(_mean(method, name) for name in names),
            *(_worst(method, name) for name in names),
        ]
        for method in setting.methods
    ]
    where = f"{setting.name}: {setting.scheduler}, {setting.steps} steps, {_size(setting)}"
    return "\n".join([printable(where), table(headers, rows), *_ahead(setting)])


def _size(setting: SettingResult) -> str:
    shape = setting.shape
    if shape is None:
        return f"latents {' × '.join(map(str, setting.latents))}"
    frames = "" if shape.frames == 1 else f", {shape.frames} frames"
    return f"{shape.height} × {shape.width}{frames}"


def _ahead(setting: SettingResult) -> list[str]:
    """Return a line for each method that is ahead of the policy."""
    return [
        f"ahead of the policy: {printable(method.title)}, with {method.ratio:.2g} of its latent error"
        + ("" if method.expressible else "; no policy can express it")
        for method in methods_ahead(setting)
    ]


def _mean(method: MethodResult, name: str) -> str:
    if _is_exact(method, name):
        return EXACT
    metric = method.metric(name)
    return MISSING if metric is None else f"{metric.mean:.4g} ± {metric.standard_error:.2g}"


def _worst(method: MethodResult, name: str) -> str:
    if _is_exact(method, name):
        return EXACT
    metric = method.metric(name)
    return MISSING if metric is None else f"{metric.worst:.4g}"


def _is_exact(method: MethodResult, name: str) -> bool:
    """Whether it is the full run's PSNR against itself, which has no number."""
    return method.name == FULL and name == PSNR
