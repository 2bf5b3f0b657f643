"""What a search on tensors found, and how it is kept: as an artifact that is signed and bound to the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, NamedTuple

import msgspec

from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.emit import versions
from budc.compiler.network.binding import (
    as_name,
    check_names,
    class_of,
    model_binding,
    parts_of,
    sampler_binding,
    weights_of,
)
from budc.compiler.network.weights import Weights
from budc.compiler.rollouts.metrics import latent_metric
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.task import SearchResult
from budc.option_names import python_names
from budc.schema.arguments import described, path_argument, signer_argument, whole_number
from budc.schema.artifact import Artifact, read, seal
from budc.schema.errors import UsageError, WeightsMismatch
from budc.schema.fields import Name
from budc.schema.files import write_atomic
from budc.schema.policy import (
    SCHEMA_VERSION,
    Baseline,
    Budget,
    Metric,
    Policy,
    PolicyDocument,
    PromptSet,
    Quality,
    Search,
)
from budc.schema.report_names import FULL
from budc.schema.signers import Signer
from budc.schema.timestamps import issue_time


class SourcePolicy(NamedTuple):
    """A policy of another network, and the id of the artifact that it is in, if it is in one."""

    policy: Policy
    policy_id: str | None


@dataclass(frozen=True)
class Origin:
    """What a policy was searched for and on: what an artifact says beside the result."""

    denoiser: Denoiser
    schedule: NoiseSchedule
    """Of the reference run, in full."""
    roots: tuple[str | None, ...]
    """Tensor root of each denoiser's weights when the search began; None where they could not be seen."""
    latents: tuple[int, ...]
    """The shape of one sample."""
    calibration: PromptSet
    held_out: PromptSet
    objective: str
    budget: str
    """As the user wrote it."""
    algorithm: str
    seed: int
    source: SourcePolicy | None = None
    """What the policy was transferred from."""
    proxy: tuple[int, ...] = ()
    """The shape of one of the smaller samples on which masks were searched, if there were any."""


@dataclass(frozen=True)
class Compiled:
    """A policy, the schedule that it runs on, how it was found, and its squared latent errors on held-out samples.

    `report` has the policy, "uniform" (plain reuse) and "fewer-steps" (nothing cached), all at the same NFE; it is
    empty where nothing was held out, and lacks what diverges. `save` keeps all of it; `budc.run` runs it as it is.
    """

    policy: Policy
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    outcome: SearchResult
    report: Mapping[str, Metric]
    origin: Origin = field(repr=False, compare=False)

    @property
    def schedule(self) -> NoiseSchedule:
        """The schedule that the policy runs on."""
        return NoiseSchedule.of(self.origin.schedule.scheduler, self.sigmas, self.timesteps)

    @property
    def nfe(self) -> int:
        """Evaluations of the branch with most."""
        return max(sum(branch.mask) for branch in self.policy.branches)

    @python_names()
    def save(
        self,
        path: str | PathLike[str],
        *,
        key: str | PathLike[str] | Signer | None = None,
        weights: Weights | None = None,
        name: str | None = None,
        revision: int = 1,
        family: str | None = None,
        unmeasured: bool = False,
    ) -> Artifact:
        """Write the policy as an artifact of the kind `network`, and return what was written.

        Args:
            path: of the file, which is replaced whole.
            key: the private key that signs it: a path, "env:NAME", or a signer; unsigned if left out.
            weights: what the policy is bound to: safetensors files, or a state dict by its tensor root. A module's own
                state dict if left out; needed for functions. One entry for each of several denoisers.
            name, revision: of the policy; by default the class and the evaluations, and 1.
            family: which networks it is for, for trust files that limit a key to some; by default the class.
            unmeasured: save it even though no samples were held out, so that it says nothing of its quality.

        Raises:
            UsageError: nothing was held out, or an argument of another kind.
            WeightsMismatch: the weights have changed since the search, or the files are not those of the network.
            KeyUnusable, OutputError: the key cannot be used, the file cannot be written.
        """
        target = path_argument(path, "path", 'pass the file to write, such as "policy.budc.json"')
        if not self.report and unmeasured is not True:
            raise UsageError(
                "held_out: nothing was held out, so the artifact would say nothing of the policy's quality",
                remedy="compile with held_out=(conditioning, noise), or pass unmeasured=True",
            )
        revision = whole_number(revision, "revision", least=1, most=2**31 - 1, remedy="count from 1")
        signer = signer_argument(key)
        document = self._document(
            weights,
            _named(name, "name", f"{self._class}-nfe{self.nfe}"),
            revision,
            _named(family, "family", self._class),
        )
        write_atomic(target, seal(document, signer))
        return read(target)

    @property
    def _class(self) -> str:
        return as_name(class_of(parts_of(self.origin.denoiser)[0]))

    def _document(self, weights: Weights | None, name: str, revision: int, family: str) -> PolicyDocument:
        origin, outcome = self.origin, self.outcome
        check_names(origin.denoiser)
        evaluations = {
            branch: sum(self.policy.for_branch(branch).mask) for branch in origin.denoiser.branches
        }
        roots = weights_of(origin.denoiser, weights)
        for searched, now in zip(origin.roots, roots, strict=True):
            if searched not in (None, now.tensor_root):
                raise WeightsMismatch(
                    f"weights: they have tensor root {now.tensor_root}, those that were searched on had {searched}",
                    remedy="put the weights back, or compile a policy for these",
                )
        return PolicyDocument(
            schema_version=SCHEMA_VERSION,
            name=name,
            revision=revision,
            issued_at=issue_time(),
            model=model_binding(origin.denoiser, origin.latents, roots, family),
            sampler=sampler_binding(origin.denoiser, self.schedule),
            budget=Budget(requested=origin.budget, nfe=self.nfe, branches=evaluations),
            policy=self.policy,
            quality=self._quality(),
            search=Search(
                algorithm=origin.algorithm,
                seed=origin.seed,
                candidates=outcome.candidates,
                forwards=outcome.forwards.total,
                settings={**outcome.settings, **self._proxy()},
                versions=versions(),
            ),
            derived_from=origin.source.policy_id if origin.source else None,
        )

    def _proxy(self) -> Mapping[str, int | str]:
        """Return on what masks were searched, as settings of the search."""
        if not self.origin.proxy:
            return {}
        return {
            "proxy": "x".join(map(str, self.origin.proxy)),
            "proxyForwards": self.outcome.forwards.proxy,
        }

    def _quality(self) -> Quality:
        origin, report = self.origin, dict(self.report)
        measured = [report.pop("policy")] if report else []
        baselines = [Baseline(name=name, nfe=self.nfe, metrics=[metric]) for name, metric in report.items()]
        if measured:
            exact = latent_metric([0.0] * measured[0].samples)
            baselines.append(Baseline(name=FULL, nfe=origin.schedule.steps, metrics=[exact]))
        return Quality(
            objective=origin.objective,
            calibration=origin.calibration,
            held_out=origin.held_out,
            metrics=measured,
            baselines=baselines,
        )


def _named(value: Any, argument: str, default: str) -> str:
    if value is None:
        return default
    try:
        return msgspec.convert(value, Name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{argument}: {described(value)} is no name: {error}",
            remedy="use letters, digits, dots and dashes",
        ) from error
