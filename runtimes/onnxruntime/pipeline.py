"""ONNX Runtime: run a policy on an exported model, without torch, diffusers or transformers.

    pipe = load("policy.budc.json", "wan2.1-nano-onnx", trust="release.pub", provider="cpu")
    generation = pipe.generate("a small red circle moves to the left over stripes", seed=0)
    generation.frames, generation.latents

The folder is one that `budc export onnx` wrote and `budc bind` added to the policy. Noise, prompt, schedule and
guidance are those of the diffusers pipeline, so the same seed gives the same latents up to rounding.
"""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from budc.runtimes.admission.held_policies import held_policies
from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning
from budc.runtimes.admission.trust import Source, UnsignedWarning
from budc.runtimes.exported.recheck import VerifiedFiles, folder_state
from budc.runtimes.onnxruntime.wheels import check_wheels
from budc.schema.arguments import path_argument
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import MissingExtra
from budc.schema.installation import install
from budc.schema.trust import Trust

try:
    check_wheels()
    from budc.runtimes.onnxruntime.checks import check_document, check_scheduler, verify_folder
    from budc.runtimes.onnxruntime.onnx_pipeline import Generation, OnnxPipeline
    from budc.runtimes.onnxruntime.provider import Provider, choose_provider
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"running with ONNX Runtime needs {missing.name}, which is not installed (extra budc[onnx] or budc[onnx-cpu])",
        remedy=f"{install('onnx')}, or {install('onnx-cpu')}",
    ) from missing

__all__ = [
    "Generation",
    "OnnxPipeline",
    "Provider",
    "UncalibratedWarning",
    "UnsignedWarning",
    "choose_provider",
    "load",
]


def load(
    artifact: Source | Sequence[Source],
    folder: str | PathLike[str],
    *,
    trust: Trust | str | PathLike[str] | None = None,
    provider: str | Provider = "cpu",
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    digests: DigestCache | None = None,
) -> OnnxPipeline:
    """Open an exported model under a policy.

    Args:
        artifact: a `.budc.json` file, or what was read from one; a bare `PolicyDocument` counts as unsigned. A list
            holds policies of several budgets for one model: the first is in effect, and `OnnxPipeline.use` chooses
            between runs.
        folder: the export. Every file of it is verified against the policy before a graph is opened.
        trust: whose signature is believed: a `Trust`, or the path of one public key.
        provider: "cpu" or "cuda", never replaced by another; `choose_provider("cpu", threads=4)` sets the number
            of CPU threads too.
        allow_unsigned: run an unsigned artifact, with a warning.
        allow_uncalibrated: run weights or settings other than calibrated, with a warning.
        digests: the cache of file digests by size and time; default the user's.

    Raises:
        UsageError: an argument of another kind, or policies for several models, or two of one budget.
        TrustError: no trusted key has signed the artifact.
        ModelError: the folder is not an export that the policy lists, or is not safe to open.
        CalibrationMismatch: the export is for another shape, text length, scheduler or pipeline.
        ProviderMissing: the provider cannot be used on this machine.
    """
    held = held_policies(artifact, trust, allow_unsigned)
    documents = [policy.document for policy in held.values()]
    export = path_argument(folder, "folder", "pass the folder that `budc export onnx` wrote")
    chosen = provider if isinstance(provider, Provider) else choose_provider(provider)
    settings = SettingsCheck(allow_uncalibrated)
    state = folder_state(export)
    manifest = verify_folder(export, documents[0], settings, digests=digests)
    for document in documents:
        check_document(document, manifest, settings)
        check_scheduler(document, export, manifest, settings)
    # Graphs are opened when they are first needed: what has changed by then is verified again.
    files = VerifiedFiles(export, manifest.files, state)
    opener = replace(chosen, before_open=files.confirm)
    return OnnxPipeline(export, manifest, held, opener, settings)
