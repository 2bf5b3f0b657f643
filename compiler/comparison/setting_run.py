"""One setting of an evaluation: the model as it is deployed there, its full run, and every method against that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import msgspec
import torch
from torch import Tensor

from budc.compiler.comparison.changed_model import sampler_under
from budc.compiler.comparison.changes import Change
from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.latency import time_loops
from budc.compiler.comparison.method import Method, Rolled, fit_rival, policy_key
from budc.compiler.comparison.rivals import RIVALS, CannotRun
from budc.compiler.comparison.rollouts import roll_fitted
from budc.compiler.comparison.setting import ModelSetting, Samples, Setting
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import ReferenceSet, encode_samples, reference_set, stored_latents
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.policies import forwards_per_sample, full_policy
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.rollouts.workers import ReportWorkers
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import chunk_spans, stored_chunks
from budc.policies.prompt_sets import SampleSets
from budc.progress import progress
from budc.schema.artifact import Artifact
from budc.schema.evaluation import Latency
from budc.schema.report_names import CALIBRATED, FEWER_STEPS, FULL, POLICY


class SettingRun:
    """What is measured in one setting. The journal has it under the setting's name.

    `hire` returns other processes that roll out the full run and policies on the held-out prompts.
    """

    def __init__(
        self,
        change: Change,
        model: LoadedModel,
        steps: int,
        samples: SampleSets,
        journal: Journal,
        hire: Callable[[Conditioning], ReportWorkers] | None = None,
    ) -> None:
        self.change = change
        self.model = model
        self.full = model.sampler(steps)
        self.rollout = PipelineRollout(
            model,
            journal.get("batch", int, lambda size: size >= 1),
            halved=lambda batch: journal.put("batch", batch),
        )
        self.samples = change.samples(samples.held_out)
        self._calibration = change.samples(samples.calibration)
        self._journal = journal
        self._hire = hire

    @cached_property
    def setting(self) -> ModelSetting:
        """What rivals are fitted to."""
        return ModelSetting(self.model, self.full, self._calibrated)

    @cached_property
    def held_out(self) -> ReferenceSet:
        """The held-out prompts with their full run."""
        label, conditions = f"{self.change.key} full", encode_samples(self.model, self.samples)
        if self._hire is not None:
            self.rollout.workers = self._hire(conditions)
        return reference_set(self.rollout, self.full, self.samples, self._journal, label, conditions)

    def full_method(self) -> Method:
        """Return the full run as a method."""
        policy = full_policy(self.full.steps, self.model.profile.branches)
        return Method(FULL, "full run", Fitted(policy=policy), self.full, FULL)

    def fewer_steps(self, nfe: int) -> Method:
        """Return the model's own sampler with so many steps."""
        policy = full_policy(nfe, self.model.profile.branches)
        return Method(
            FEWER_STEPS,
            RIVALS[FEWER_STEPS].title,
            Fitted(policy=policy),
            self.model.sampler(nfe),
            f"{FEWER_STEPS} {nfe}",
            nfe,
        )

    def of_policy(self, artifact: Artifact, base: LoadedModel) -> Method:
        """Return a policy in this setting; `base` is the model as the policy was calibrated for it.

        At a further shape of the policy it has the sigmas and the predictors of that shape.
        """
        size = self.change.profile
        document = artifact.document.of_size(size.frames, size.height, size.width)
        sampler = document.sampler
        if self.change.name != CALIBRATED:
            sampler = sampler_under(sampler, base, self.model)
        return Method(POLICY, document.name, Fitted(policy=document.policy), sampler, policy_key(artifact))

    def fit(self, name: str, nfe: int, seed: int) -> Fitted | CannotRun:
        """Fit a rival to this setting; return why not where it cannot run at so many evaluations."""
        return fit_rival(name, self.setting, nfe, seed, self._journal)

    def rival(self, name: str, nfe: int, fitted: Fitted) -> Method:
        """Return a rival, as it was fitted to the setting in which nothing is changed."""
        sampler = self.full
        if fitted.sigmas is not None and fitted.timesteps is not None:
            aligned = msgspec.structs.replace(sampler, sigmas=fitted.sigmas, timesteps=fitted.timesteps)
            sampler = self.model.with_experts(aligned)
        return Method(name, RIVALS[name].title, fitted, sampler, f"{name} {nfe}", nfe)

    def roll_out(self, method: Method) -> Rolled:
        """Roll a method out on the held-out prompts."""
        conditions, label = self.held_out.conditions, f"{self.change.key} {method.key}"
        policy = method.fitted.policy
        if policy is None:
            return self._roll_unlike_pipeline(label, method)
        if method.key == FULL:
            latents = self.held_out.latents
        else:
            latents = stored_latents(self.rollout, policy, method.sampler, conditions, self._journal, label)
        nfe = forwards_per_sample(policy) / len(self.model.profile.branches)
        return Rolled(method, latents, (nfe,) * len(conditions))

    def latencies(self, methods: Sequence[Method], repeats: int) -> dict[str, Latency]:
        """Return the latency of each method's loop for one sample, by key; those that the journal has are not run."""
        label = f"{self.change.key} latency"
        found = {
            method.key: self._journal.get(f"{label} {repeats} {method.key}", Latency) for method in methods
        }
        missing = [method for method in methods if found[method.key] is None]
        if missing:
            one = self.held_out.conditions.part(0, 1)
            loops = {method.key: partial(self._run_once, method, one) for method in missing}
            for key, latency in time_loops(loops, repeats, self.model.device, label).items():
                self._journal.put(f"{label} {repeats} {key}", latency)
                found[key] = latency
        return {key: latency for key, latency in found.items() if latency is not None}

    def _run_once(self, method: Method, conditions: Conditioning) -> None:
        if method.fitted.policy is not None:
            PipelineRollout(self.model, batch=1).run(method.fitted.policy, method.sampler, conditions)
        else:
            roll_fitted(self.setting, method.fitted, conditions)

    def _roll_unlike_pipeline(self, label: str, method: Method) -> Rolled:
        conditions = self.held_out.conditions

        def roll_out(first: int, last: int) -> tuple[Mapping[str, Tensor], int]:
            latents, counts = roll_fitted(self.setting, method.fitted, conditions.part(first, last))
            return {"latents": latents, "nfe": counts}, 0

        latents: list[Tensor] = []
        counts: list[float] = []
        with progress(label, len(chunk_spans(self._journal, len(conditions)))) as bar:
            for part in stored_chunks(self._journal, label, len(conditions), ["latents", "nfe"], roll_out):
                latents.append(part.tensors["latents"])
                counts += part.tensors["nfe"].tolist()
                bar.advance(replayed=part.replayed)
        return Rolled(method, torch.cat(latents), tuple(counts))

    def _calibrated(self, setting: Setting) -> Samples:
        conditions = encode_samples(self.model, self._calibration)
        label = f"{self.change.key} calibration"
        network = setting.network_of(conditions)
        return Samples(conditions, reference_run(network, setting.form, self._journal, label))
