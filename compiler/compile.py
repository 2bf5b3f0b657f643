"""The compile itself: the passes in order, resumed where an earlier call was killed."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import torch

from budc.compiler.calibrate import CALIBRATION_SEED, HELD_OUT_SEED, calibrate
from budc.compiler.emit import make_document, versions, write_artifact
from budc.compiler.evaluate import evaluate
from budc.compiler.folder import component_digests
from budc.compiler.journal import Journal
from budc.compiler.model import Model, default_device, load_model, model_binding
from budc.compiler.request import CompileRequest, check_request
from budc.compiler.rollout import Roller
from budc.compiler.search import Space
from budc.compiler.study import OBJECTIVE, search
from budc.policies.profile import find_weights, read_prompts
from budc.schema.artifact import SUFFIX, Artifact, read
from budc.schema.canonical import digest
from budc.schema.errors import OutputError, UsageError
from budc.schema.keys import load_signer
from budc.schema.policy import ModelBinding, SamplerBinding


def _output(request: CompileRequest, default: str) -> Path:
    path = request.out or Path(f"{request.name or default}{SUFFIX}")
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"--out: {path} is not a file in an existing folder")
    return path


def _fingerprint(
    request: CompileRequest,
    model: Model,
    binding: ModelBinding,
    sampler: SamplerBinding,
    prompts: tuple[tuple[str, ...], ...],
) -> str:
    """Digest of all that a measurement depends on; name, key and output path are not among it."""
    cuda = model.device.type == "cuda"
    return digest(
        {
            "budget": request.budget,
            "search": request.search,
            "seed": request.seed,
            "profile": msgspec.to_builtins(model.profile),
            "sampler": msgspec.to_builtins(sampler),
            "denoisers": msgspec.to_builtins(binding),
            "components": component_digests(model.profile, model.folder),
            "prompts": [list(part) for part in prompts],
            "versions": versions(),
            "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
        }
    )


def compile_policy(request: CompileRequest) -> Artifact:
    """Compile a policy and write its artifact; return what was written.

    Raises:
        BudcError: see the passes; everything that can be refused is refused before the first rollout.
    """
    profile, steps, nfe = check_request(request)
    signer = load_signer(request.key) if request.key else None
    path = _output(request, f"{profile.name}-nfe{nfe}")
    sizes = profile.prompts
    calibration = read_prompts(
        request.calibration or sizes.calibration, None if request.calibration else sizes.calibration_size
    )
    held_out = read_prompts(sizes.held_out, sizes.held_out_size)
    if shared := set(calibration) & set(held_out):
        raise UsageError(
            f"--calibration: {len(shared)} of the prompts are held out, the first is {sorted(shared)[0]!r}",
            remedy="calibrate on prompts that the report is not measured on",
        )
    folder = find_weights(profile, request.weights, download=request.download)
    binding = model_binding(profile, folder)
    device = default_device()
    if device.type == "cpu" and not profile.embedded:
        print(
            f"no CUDA device: {profile.title} will be compiled on the CPU, which takes days", file=sys.stderr
        )
    model = load_model(profile, folder, device)
    sampler = model.sampler(steps)
    space = Space(steps, nfe, profile.search)
    fingerprint = _fingerprint(request, model, binding, sampler, (calibration, held_out))
    with Journal(path.parent / f".{path.name}.{fingerprint[7:19]}", fingerprint) as journal:
        if journal.records:
            print(f"resuming: {len(journal.records)} measurements are in {journal.folder}", file=sys.stderr)
        roller = Roller(model, journal.get("batch"), halved=lambda batch: journal.put("batch", batch))
        reference = calibrate(roller, sampler, calibration, CALIBRATION_SEED, journal, "calibration full")
        full = roller.forwards
        found = search(request.search, space, roller, sampler, reference, journal, request.seed)
        held = calibrate(roller, sampler, held_out, HELD_OUT_SEED, journal, "held-out full")
        quality = evaluate(found.candidate, OBJECTIVE, reference.prompt_set(), roller, sampler, held, journal)
        document = make_document(
            request, profile, binding, sampler, space, found, quality, full + found.forwards
        )
        write_artifact(document, signer, path)
        journal.discard()
    return read(path)
