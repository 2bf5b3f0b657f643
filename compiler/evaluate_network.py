"""Evaluate a policy on a network of one's own: its latent error and its latency, beside other methods.

    evaluation = budc.evaluate(
        "policy.budc.json", network, conditioning, noise, scheduler,
        against="fewer-steps,taylorseer-1", calibration=(conditioning, noise), trust="release.pub",
    )
    evaluation.save("policy.evaluation.json", key="lab.key")

`budc evaluate` does so for model folders, where frames can be decoded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from budc.compiler.api_inputs import Pair
from budc.compiler.api_samples import prompt_set
from budc.compiler.api_settings import check_execution
from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.method import Method
from budc.compiler.comparison.rivals import RIVALS, CannotRun, choose_rivals
from budc.compiler.denoisers.conditioning import Condition, Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.evaluate_arguments import check_samples, full_schedule, listed, samples_to_fit
from budc.compiler.network.admission import Admitted, admitted
from budc.compiler.network.compiled import Compiled
from budc.compiler.network.weights import Weights
from budc.compiler.network_evaluation import NetworkEvaluation
from budc.compiler.network_rollouts import NetworkRollouts, NetworkSetting
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.storage.journal import Journal
from budc.option_names import python_names
from budc.progress import Report, reported
from budc.runtimes.admission.trust import Source, unevaluated
from budc.runtimes.sampling.devices import device_name
from budc.schema.arguments import whole_number
from budc.schema.evaluation import MethodResult, NotMeasuredNote, SettingResult
from budc.schema.report_names import CALIBRATED, FULL, POLICY
from budc.schema.trust import Trust

__all__ = ["NetworkEvaluation", "evaluate"]


@python_names()
def evaluate(
    policy: Source | Compiled,
    denoiser: nn.Module | Pair | Denoiser,
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    *,
    against: str | Sequence[str] | None = None,
    calibration: tuple[Mapping[str, Condition], Tensor] | None = None,
    sigmas: Sequence[float] | Tensor | None = None,
    timesteps: Sequence[float] | Tensor | None = None,
    repeats: int = 5,
    weights: Weights | None = None,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    seed: int = 0,
    batch: int | None = None,
    progress: Report | None = None,
) -> NetworkEvaluation:
    """Measure a policy on its network, beside the full run and rivals at the same number of evaluations.

    Args:
        policy: an artifact that `Compiled.save` wrote, or what `compile_policy` returned.
        denoiser: the network, as it was passed to `compile_policy`.
        conditioning, noise: guidance branch -> condition, and initial latents, of the N samples to measure on.
        scheduler: of the policy's class and settings.
        against: rivals as `budc evaluate --against` names them; "all", "none"; by default fewer steps and uniform.
        calibration: conditioning and noise of other samples, on which rivals are fitted; the default ones need none.
        sigmas, timesteps: of the full run. Needed for an artifact whose own sigmas were trained or are of fewer steps.
        repeats: timed rounds of the denoising loop of one sample; 0 for no latency.
        weights, trust, allow_unsigned: as for `budc.run`.
        seed, batch: of rivals that search; the most samples of one forward.
        progress: called with a pass's name, and how many of how many units are done.

    Raises:
        TrustError, WeightsMismatch, CalibrationMismatch: see `budc.run`; nothing uncalibrated is evaluated.
        UsageError: an argument of another kind, samples that the policy was searched on, rivals without calibration.
        CompileError: final latents are not finite.
    """
    seed, batch = check_execution(seed, batch, None, progress)
    repeats = whole_number(repeats, "repeats", least=0, most=1000, remedy="pass rounds to time, or 0")
    names = choose_rivals(listed(against), None)
    given = (denoiser, conditioning, noise, scheduler)
    run = admitted(policy, given, weights, unevaluated(trust), (allow_unsigned, False), batch)
    schedule = full_schedule(policy, run, scheduler, sigmas, timesteps)
    samples = run.denoiser.conditions
    check_samples(policy, run, samples)
    fitted_on = samples_to_fit(calibration, samples, names)
    with (
        reported(progress),
        tempfile.TemporaryDirectory(prefix="budc-") as folder,
        Journal(Path(folder), "") as journal,
    ):
        setting = NetworkSetting(run.denoiser.denoiser, schedule, fitted_on, batch, journal)
        methods, left_out = _methods(run, setting, names, seed, journal)
        results = NetworkRollouts(setting, run.denoiser).results(methods, repeats)
    device = device_name(run.denoiser.denoiser.device)
    measured = _setting_result(setting, samples, results)
    return NetworkEvaluation(_name(run), run.expected.policy_id, measured, device, left_out)


def _setting_result(
    setting: NetworkSetting, samples: Conditioning, results: Sequence[MethodResult]
) -> SettingResult:
    full = setting.sampler
    return SettingResult(
        name=CALIBRATED,
        scheduler=full.scheduler,
        config_digest=full.config_digest,
        steps=full.steps,
        guidance=full.guidance,
        latents=list(samples.noise.shape[1:]),
        prompts=prompt_set(samples),
        methods=results,
    )


def _methods(
    run: Admitted, setting: NetworkSetting, names: Sequence[str], seed: int, journal: Journal
) -> tuple[list[Method], list[NotMeasuredNote]]:
    """Return the policy, the rivals and the full run, and the rivals that cannot run with so many evaluations."""
    nfe = max(sum(branch.mask) for branch in run.policy.branches)
    own = setting.sampler_on(run.sigmas, run.timesteps)
    methods = [Method(POLICY, _name(run), Fitted(policy=run.policy), own, POLICY)]
    left_out = []
    for name in names:
        rival = setting.rival(name, nfe, seed, journal)
        if isinstance(rival, CannotRun):
            left_out.append(NotMeasuredNote(name=name, reason=str(rival)[:1024]))
        else:
            methods.append(Method(name, RIVALS[name].title, *rival, name, nfe))
    everything = Fitted(policy=full_policy(setting.form.steps, setting.branches))
    return [*methods, Method(FULL, "full run", everything, setting.sampler, FULL)], left_out


def _name(run: Admitted) -> str:
    return run.expected.name or f"nfe{max(sum(branch.mask) for branch in run.policy.branches)}"
