"""Task and result: what is to be found, on tensors alone, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.rollouts.reference_run import Recorded, StatesDtype
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.search.space import Candidate, Rule
from budc.compiler.selection.effort import DEFAULT_EFFORT, effort
from budc.compiler.selection.stages import Trained
from budc.compiler.selection.trace import TracePoint
from budc.compiler.training.frame_loss import FrameLoss
from budc.policies.profile import AnnealingSettings
from budc.schema.policy import PAYLOADS, Payload, Policy

Settings = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Task:
    """What is to be found: a policy of `nfe` evaluations a branch for a denoiser on a schedule.

    `few_step_schedule` is the schedule of as many steps as the budget, where that may win too.
    """

    denoiser: Denoiser
    schedule: NoiseSchedule
    conditions: Conditioning
    nfe: int
    annealing: AnnealingSettings
    search: str = "joint"
    effort: str = DEFAULT_EFFORT
    seed: int = 0
    align: bool = False
    train: Trained = "both"
    frame_loss: FrameLoss | None = None
    """What the paper's second stage minimises in place of the squared error of latents."""
    separate: bool = False
    published_masks: tuple[tuple[int, ...], ...] = ()
    starts: tuple[tuple[int, ...], ...] = ()
    """Compute steps that the default search starts from beside its own."""
    few_step_schedule: NoiseSchedule | None = None
    judged: bool = False
    """Whether prompts are to be left over to judge the policy by, whatever else is chosen on them."""
    batch: int | None = None
    states: StatesDtype = "float32"
    """In which dtype the states of the reference run are kept."""
    rule: Rule = "tracked"
    payloads: tuple[Payload, ...] = PAYLOADS
    """What `denoiser` records, and may be reused."""
    always: tuple[int, ...] = ()
    """Steps that the engine of the policy computes in every run."""
    proposed: int = 1
    """How many candidates the default search proposes at a time."""
    rollouts: float | None = None
    """The share of its limit that `joint` takes; None for the effort's."""
    refine: bool = True
    """Whether the winner's coefficients are refined, where the effort has that."""

    @property
    def share(self) -> float:
        """The share of its limit that `joint` takes."""
        return effort(self.effort).share(self.nfe) if self.rollouts is None else self.rollouts

    @property
    def recorded(self) -> Recorded:
        """What its reference run keeps."""
        return Recorded(self.states, self.payloads)

    @property
    def arbitrates(self) -> bool:
        """Whether a choice beside the finalists' is to be made on prompts that the search does not see."""
        return self.align or self.judged or self.few_step_schedule is not None

    def label(self, candidate: Candidate) -> str:
        """Return what the journal calls a candidate."""
        return f"{self.search} {self.nfe} {candidate.key}"


@dataclass(frozen=True)
class ForwardCount:
    """What a search cost, by stage: forwards of one sample and one branch, a backward counted as two.

    Those of a `proxy` are of a smaller output, and not in the total.
    """

    reference: int = 0
    search: int = 0
    race: int = 0
    arbitration: int = 0
    alignment: int = 0
    paired: int = 0
    """The reference runs of the further samples that an alignment trains on and is judged by."""
    refit: int = 0
    refinement: int = 0
    proxy: int = 0
    proxy_reference: int = 0
    """Those of the proxy that are its reference run."""

    @property
    def total(self) -> int:
        """All stages together, those of a proxy left out."""
        return sum(getattr(self, stage.name) for stage in fields(self) if not stage.name.startswith("proxy"))

    @property
    def own(self) -> ForwardCount:
        """The same without reference runs, which the searches of several budgets share."""
        return replace(
            self, reference=0, paired=0, proxy=self.proxy - self.proxy_reference, proxy_reference=0
        )

    def __add__(self, other: ForwardCount) -> ForwardCount:
        """Add stage by stage."""
        return ForwardCount(
            *(getattr(self, stage.name) + getattr(other, stage.name) for stage in fields(self))
        )


@dataclass(frozen=True)
class SearchResult:
    """The policy that was found, on its schedule, its loss on the search prompts, and what it cost.

    `notes` say in words which choices were made after the search; `settings` are those of the
    search, as an artifact lists them; `trace` has what the search scored, in its order.
    """

    policy: Policy
    schedule: NoiseSchedule
    loss: float
    candidates: int = 0
    forwards: ForwardCount = field(default_factory=ForwardCount)
    aligned: bool = False
    judged: Policy | None = None
    """The policy before its coefficients were fitted on the prompts that judge, where they were."""
    notes: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    trace: tuple[TracePoint, ...] = ()
