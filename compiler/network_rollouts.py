"""A network of one's own as rivals are fitted to it, and every method on the samples that are measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.latency import time_loops
from budc.compiler.comparison.method import Method, Rolled, fit_rival
from budc.compiler.comparison.rivals import RIVALS, CannotRun
from budc.compiler.comparison.rollouts import roll_fitted
from budc.compiler.comparison.setting import Samples, Setting
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.network.binding import sampler_binding
from budc.compiler.network.search import ANNEALING
from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.rollouts.policies import forwards_per_sample, full_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.storage.journal import Journal
from budc.policies.profile import AnnealingSettings
from budc.progress import progress
from budc.schema.errors import CompileError
from budc.schema.evaluation import Latency, MethodResult
from budc.schema.policy import SamplerBinding
from budc.schema.report_names import FEWER_STEPS, FULL, LATENT_MSE


class NetworkSetting(Setting):
    """A network on the schedule of its full run; rivals are fitted on `calibration`, where there is one."""

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        calibration: Conditioning | None,
        batch: int | None,
        journal: Journal,
    ) -> None:
        self._denoiser, self._schedule, self._batch = denoiser, schedule, batch

        def calibrated(setting: Setting) -> Samples:
            assert calibration is not None
            network = setting.network_of(calibration)
            return Samples(calibration, reference_run(network, setting.form, journal, "calibration samples"))

        super().__init__(schedule.scheduler, sampler_binding(denoiser, schedule), calibrated)

    @property
    def name(self) -> str:
        """There is one."""
        return "network"

    @property
    def denoiser(self) -> Denoiser:
        """The network."""
        return self._denoiser

    @property
    def annealing(self) -> AnnealingSettings:
        """The paper's for FLUX."""
        return ANNEALING

    def sampler_of(self, steps: int) -> SamplerBinding:
        """Return so many steps along the same curve."""
        return sampler_binding(self._denoiser, self._schedule.resampled(steps))

    def sampler_on(self, sigmas: Sequence[float], timesteps: Sequence[float]) -> SamplerBinding:
        """Return the scheduler on these noise levels."""
        return sampler_binding(self._denoiser, NoiseSchedule.of(self.scheduler, sigmas, timesteps))

    def network_of(self, conditions: Conditioning) -> BatchedDenoiser:
        """Return the network over samples, in the batches that were asked for."""
        return BatchedDenoiser(self._denoiser, conditions, self._batch)

    def rival(
        self, name: str, nfe: int, seed: int, journal: Journal
    ) -> tuple[Fitted, SamplerBinding] | CannotRun:
        """Return a rival and its sampler; why not where it cannot run with so many evaluations."""
        if name == FEWER_STEPS:
            return Fitted(policy=full_policy(nfe, self.branches)), self.sampler_of(nfe)
        fitted = fit_rival(name, self, nfe, seed, journal)
        if isinstance(fitted, CannotRun):
            return fitted
        if fitted.sigmas is not None and fitted.timesteps is not None:
            return fitted, self.sampler_on(fitted.sigmas, fitted.timesteps)
        return fitted, self.sampler


class NetworkRollouts:
    """Methods on the samples that are measured; errors are those against the method called "full"."""

    def __init__(self, setting: NetworkSetting, network: BatchedDenoiser) -> None:
        self._setting, self._network = setting, network

    def results(self, methods: Sequence[Method], repeats: int) -> list[MethodResult]:
        """Return the results of each method, with the latency of one sample where `repeats` is above 0.

        Raises:
            CompileError: final latents are not finite.
            DeviceMemory: one sample does not fit into the memory of the device.
        """
        rolled: list[Rolled] = []
        with progress("methods on the samples", len(methods)) as bar:
            for method in methods:
                rolled.append(self._roll_out(method, self._network))
                bar.advance(method.title)
        latencies: dict[str, Latency] = {}
        if repeats:
            one = self._setting.network_of(self._network.conditions.part(0, 1))
            loops = {method.key: partial(self._roll_out, method, one) for method in methods}
            device = self._setting.denoiser.device
            latencies = time_loops(loops, repeats, device, "latency of the denoising loop")
        (reference,) = (item.latents for item in rolled if item.method.name == FULL)
        return [self._result(item, reference, latencies.get(item.method.key)) for item in rolled]

    def _result(self, item: Rolled, reference: Tensor, latency: Latency | None) -> MethodResult:
        errors = latent_errors(item.latents, reference)
        branches = len(self._setting.branches)
        return item.result(branches, [latent_metric(errors)], {LATENT_MSE: errors}, latency)

    def _roll_out(self, method: Method, network: BatchedDenoiser) -> Rolled:
        policy, sampler = method.fitted.policy, method.sampler
        if policy is None:
            latents, counts = roll_fitted(self._setting, method.fitted, network.conditions)
            nfe = tuple(counts.tolist())
        else:
            form = linear_form(self._setting.scheduler, sampler.sigmas, sampler.timesteps)
            latents = rollout_policy(network, form, policy)
            nfe = (forwards_per_sample(policy) / len(network.branches),) * len(latents)
        if not torch.isfinite(latents).all():
            raise CompileError(
                f"{method.title}: its final latents are not finite",
                remedy="leave it out of against"
                if method.name in RIVALS
                else "check the network and its samples",
            )
        return Rolled(method, latents, nfe)
