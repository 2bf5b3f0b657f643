"""One setting of an evaluation: the model as it is deployed there, its full run, and every method against that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from budc.compiler.comparison.changes import Change
from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.latency import time_loops
from budc.compiler.comparison.setting import Samples, Setting
from budc.compiler.comparison.teacache import roll_by
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import ReferenceSet, encode_samples, reference_set, stored_latents
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.policies import forwards_per_sample, full_policy
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import shard_spans, stored_shards
from budc.policies.prompt_sets import SampleSets
from budc.policies.samples import Sample
from budc.progress import progress
from budc.schema.evaluation import Latency
from budc.schema.policy import PolicyDocument, SamplerBinding


@dataclass(frozen=True)
class Method:
    """What is measured: what was fitted, and the sampler that it runs on."""

    title: str
    fitted: Fitted
    sampler: SamplerBinding


@dataclass(frozen=True)
class Rolled:
    """A method on the held-out prompts: final latents (N, ...), and evaluations per branch of each sample."""

    method: Method
    latents: Tensor
    nfe: tuple[float, ...]


class SettingRun:
    """Everything that is measured in one setting. What has been measured is in the journal, under the setting's name."""

    def __init__(
        self, change: Change, model: LoadedModel, steps: int, samples: SampleSets, journal: Journal
    ) -> None:
        self.change = change
        self.model = model
        self.full = model.sampler(steps)
        self.rollout = PipelineRollout(
            model,
            journal.get("batch", int, lambda size: size >= 1),
            halved=lambda batch: journal.put("batch", batch),
        )
        self._samples = samples
        self._journal = journal

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The prompts that methods are measured on, with the setting's negative prompt."""
        negative = self.change.profile.prompts.negative
        own = self._samples.held_out
        return tuple(sample._replace(negative=negative) for sample in own) if self._negates else own

    @property
    def _negates(self) -> bool:
        return self.change.name.startswith("negative=")

    @cached_property
    def setting(self) -> Setting:
        """What rivals are fitted to."""
        return Setting(self.model, self.full, self._calibrated)

    @cached_property
    def held_out(self) -> ReferenceSet:
        """The held-out prompts with their full run."""
        label = f"{self.change.name} full"
        return reference_set(self.rollout, self.full, self.samples, self._journal, label)

    def full_method(self) -> Method:
        """Return the full run as a method."""
        policy = full_policy(self.full.steps, self.model.profile.branches)
        return Method("full run", Fitted(policy=policy), self.full)

    def fewer_steps(self, nfe: int) -> Method:
        """Return the model's own sampler with so many steps."""
        policy = full_policy(nfe, self.model.profile.branches)
        return Method("fewer steps", Fitted(policy=policy), self.model.sampler(nfe))

    def of_policy(self, document: PolicyDocument, base: LoadedModel) -> Method:
        """Return a policy in this setting, as `base` deploys it where nothing is changed.

        Sigmas that the policy has of its own stay. Where it has the schedule of its sampler, it gets this setting's.
        """
        sampler, own = document.sampler, self.model.sampler(document.sampler.steps)
        defaults = base.sampler(sampler.steps).sigmas
        same = all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(sampler.sigmas, defaults, strict=True))
        if not same:
            own = self.model.with_experts(
                msgspec.structs.replace(own, sigmas=sampler.sigmas, timesteps=sampler.timesteps)
            )
        return Method(document.name, Fitted(policy=document.policy), own)

    def fitted(self, name: str, nfe: int, fit: Fitter) -> Fitted | None:
        """Return a rival fitted to this setting; None where it cannot run at so many evaluations."""
        key = f"{self.change.name} fitted {name} {nfe}"
        found = self._journal.get(key, Fitted)
        if found is None:
            try:
                folder = self._journal.folder / key.replace(" ", "-").replace("/", "-")
                found = fit(self.setting, nfe, folder)
            except ValueError:
                return None
            self._journal.put(key, found)
        return found

    def roll_out(self, key: str, method: Method) -> Rolled:
        """Roll a method out on the held-out prompts."""
        conditions, label = self.held_out.conditions, f"{self.change.name} {key}"
        policy = method.fitted.policy
        if policy is None:
            return self._roll_by_rule(label, method)
        latents = stored_latents(
            self.rollout, policy, method.sampler, conditions, self._journal, label
        )
        nfe = forwards_per_sample(policy) / len(self.model.profile.branches)
        return Rolled(method, latents, (nfe,) * len(conditions))

    def latencies(self, methods: Mapping[str, Method], repeats: int) -> dict[str, Latency]:
        """Return the latency of each method's denoising loop for one sample; those that the journal has are not run."""
        key = f"{self.change.name} latency {repeats}"
        known = {
            name: found
            for name in methods
            if (found := self._journal.get(f"{key} {name}", Latency)) is not None
        }
        missing = {name: method for name, method in methods.items() if name not in known}
        if missing:
            one = self.held_out.conditions.part(0, 1)
            loops = {name: partial(self._run_once, method, one) for name, method in missing.items()}
            measured = time_loops(loops, repeats, self.model.device, f"{self.change.name} latency")
            for name, latency in measured.items():
                self._journal.put(f"{key} {name}", latency)
            known |= measured
        return known

    def _run_once(self, method: Method, conditions: Conditioning) -> None:
        if method.fitted.policy is not None:
            PipelineRollout(self.model, batch=1).run(method.fitted.policy, method.sampler, conditions)
        elif method.fitted.rule is not None:
            roll_by(self.setting, method.fitted.rule, conditions)

    def _roll_by_rule(self, label: str, method: Method) -> Rolled:
        conditions, rule = self.held_out.conditions, method.fitted.rule
        assert rule is not None

        def roll_out(first: int, last: int) -> tuple[Mapping[str, Tensor], int]:
            latents, counts = roll_by(self.setting, rule, conditions.part(first, last))
            return {"latents": latents, "nfe": counts}, 0

        latents: list[Tensor] = []
        counts: list[float] = []
        with progress(label, len(shard_spans(len(conditions)))) as bar:
            for part in stored_shards(
                self._journal, label, len(conditions), ["latents", "nfe"], roll_out
            ):
                latents.append(part.tensors["latents"])
                counts += part.tensors["nfe"].tolist()
                bar.advance(replayed=part.replayed)
        return Rolled(method, torch.cat(latents), tuple(counts))

    def _calibrated(self, setting: Setting) -> Samples:
        negative = self.change.profile.prompts.negative
        own: Sequence[Sample] = self._samples.calibration
        if self._negates:
            own = [sample._replace(negative=negative) for sample in own]
        conditions = encode_samples(self.model, own)
        label = f"{self.change.name} calibration"
        network = setting.network_of(conditions)
        return Samples(conditions, reference_run(network, setting.form, self._journal, label))
