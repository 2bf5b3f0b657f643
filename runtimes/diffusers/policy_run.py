"""A run of a pipeline under a policy, driven by the pipeline's own calls.

- `scheduler.set_timesteps` starts the run; afterwards the policy's exact schedule is set.
- `transformer.cache_context(branch)` surrounds every forward and names its guidance branch.
- `scheduler.step` ends a step. In a pipeline that names no branches the forwards are prepared here: of the only
  branch that the policy has, or of all branches where they come in one batch (one mask, coefficients of their own).
- `prepare_latents` and `encode_prompt` show the size and the text length before anything is computed.
- A call of the pipeline shows the negative prompt.
- `maybe_free_model_hooks` ends the run, and so does the end of the pipeline's call, by an exception too.

Another pipeline may share the scheduler or a transformer. Its calls go through unchanged, or are refused while a run
under the policy needs what they share.

`torch.compile` traces none of it: a compiled transformer has two graphs, whatever the number of steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.calls import PipelineCalls
from budc.runtimes.diffusers.checks import (
    check_experts,
    check_guidance,
    check_sampler,
    check_schedule,
    unnamed_branches,
)
from budc.runtimes.diffusers.denoiser import PolicyDenoiser
from budc.runtimes.diffusers.forwards import PolicyForwards
from budc.runtimes.diffusers.neighbours import calling_pipeline
from budc.runtimes.diffusers.output_checks import OutputChecks
from budc.runtimes.diffusers.precision import check_arithmetic, check_encoders
from budc.runtimes.sampling.schedulers import apply_schedule, step_index
from budc.schema.errors import BudcError, CalibrationMismatch, RefusedRun
from budc.schema.policy import PolicyDocument

Method = Callable[..., Any]


class PolicyRun:
    """Replacements for a pipeline's methods; each is called with the original method first."""

    def __init__(
        self,
        pipe: Any,
        document: PolicyDocument,
        denoisers: Sequence[PolicyDenoiser],
        settings: SettingsCheck,
    ) -> None:
        self._pipe = pipe
        self._document = document
        self._denoisers = denoisers
        self._settings = settings
        self._scheduler = pipe.scheduler
        self._family = denoisers[0].trunk.family
        self._output_checks = OutputChecks(pipe, denoisers[0].transformer, document, settings, self._family)
        self.forwards = PolicyForwards(document, pipe.scheduler, denoisers, self._output_checks)
        self.calls = PipelineCalls(pipe, self._begin_call, self._end)
        self._unnamed: tuple[str, ...] = ()
        self._names_branches = False
        self._started = False

    def use(self, document: PolicyDocument) -> None:
        """Go over to another policy for the same model.

        Raises:
            RefusedRun: a run is under way.
        """
        if self._started or self._in_own_loop:
            raise RefusedRun(
                f"a run under the policy {self._document.name} is under way",
                remedy="call use() when it has ended, not in its callback",
            )
        self._end()
        self._document = document
        self._output_checks.use(document)
        for denoiser in self._denoisers:
            denoiser.use(document)

    def set_timesteps(self, original: Method, *args: Any, **kwargs: Any) -> Any:
        """Start a run: check the pipeline as it is now, and set the policy's schedule."""
        if self.is_neighbour("scheduler"):
            return original(*args, **kwargs)
        if calling_pipeline() is None:
            self.calls.neighbours.wait()
        self._start()
        self.forwards.end_run()
        result = original(*args, **kwargs)
        document = self._output_checks.begin_run()
        check_schedule(document, len(self._scheduler.timesteps), kwargs, self._family)
        apply_schedule(self._scheduler, document.sampler.sigmas, document.sampler.timesteps)
        self._check(document)
        self._unnamed = unnamed_branches(document, self._pipe, self._family)
        self._names_branches = False
        self.forwards.begin_run(document)
        if self._unnamed:
            self.forwards.enter(*self._unnamed)
        return result

    def prepare_latents(self, original: Method, *args: Any, **kwargs: Any) -> Any:
        """Check the size of the output."""
        self._start()
        return self._output_checks.prepare_latents(original, *args, **kwargs)

    def encode_prompt(self, original: Method, *args: Any, **kwargs: Any) -> Any:
        """Check the length of the text."""
        self._start()
        return self._output_checks.encode_prompt(original, *args, **kwargs)

    def cache_context(
        self, denoiser: PolicyDenoiser, original: Method, name: str, **kwargs: Any
    ) -> AbstractContextManager[None]:
        """Run the forward of the branch `name` in the with-block."""
        if self.is_neighbour(denoiser.name):
            return cast("AbstractContextManager[None]", original(name, **kwargs))
        return self._named_forward(denoiser, original(name, **kwargs), name)

    def step(self, original: Method, *args: Any, **kwargs: Any) -> Any:
        """Step the scheduler, after the forwards of the step and before those of the next."""
        if self.is_neighbour("scheduler") or not self.forwards.running:
            return original(*args, **kwargs)
        try:
            if self._names_branches:
                self._check_branches()
                return original(*args, **kwargs)
            return self._step_unnamed(original, *args, **kwargs)
        except BaseException:
            self._end()
            raise

    def maybe_free_model_hooks(self, original: Method) -> Any:
        """End the run: it is the last thing that a pipeline does, interrupted or not."""
        self._end()
        return original()

    def is_neighbour(self, shared: str) -> bool:
        """Whether another pipeline, which shares the component `shared`, is calling it.

        Raises:
            RefusedRun: it is, while a run under the policy is under way.
        """
        caller = calling_pipeline()
        if caller is None or caller is self._pipe:
            return False
        if self._in_own_loop or not self.calls.neighbours.admits(caller):
            other, own = type(caller).__name__, type(self._pipe).__name__
            raise RefusedRun(
                f"this {other} shares its {shared} with the {own} that is running under the policy "
                f"{self._document.name}",
                remedy=f"run it when that run has ended, or give it a {shared} of its own",
            )
        return True

    @property
    def _in_own_loop(self) -> bool:
        """Whether a loop of the user's own has begun a run and has steps left."""
        return self.forwards.running and step_index(self._scheduler) < self._document.sampler.steps

    def _start(self) -> None:
        # Pipelines differ in which of these methods they call first.
        if not self._started:
            self._settings.begin_run()
            self._started = True

    def _begin_call(self, method: Method, given: Mapping[str, Any]) -> None:
        self._start()
        self._output_checks.pipeline_call(method, given)

    def _end(self) -> None:
        self.forwards.end_run()
        self._output_checks.end_run()
        self._started = False

    def _check(self, document: PolicyDocument) -> None:
        for denoiser in self._denoisers:
            denoiser.check(self._settings)
        device: Any = getattr(self._pipe, "_execution_device", self._denoisers[0].transformer.device)
        check_arithmetic(self._document.pipeline().shape.dtype, device.type, self._settings)
        check_encoders(self._document, self._pipe, self._settings)
        check_sampler(self._document, self._scheduler, self._settings)
        check_experts(document, self._pipe)
        check_guidance(self._document, self._pipe, self._settings, self._family)

    @contextmanager
    def _named_forward(
        self, denoiser: PolicyDenoiser, context: AbstractContextManager[None], name: str
    ) -> Iterator[None]:
        with context:
            try:
                if not self.forwards.running:
                    raise self._not_running()
                check_guidance(self._document, self._pipe, self._settings, self._family)
                self._names_branches = True
                self.forwards.enter(name, called=denoiser)
                yield
                self.forwards.leave(name)
            except BaseException:
                self._end()
                raise

    def _not_running(self) -> BudcError:
        if self._pipe.scheduler is not self._scheduler:
            return CalibrationMismatch(
                f"scheduler: the policy was applied with {type(self._scheduler).__name__}, "
                f"but the pipeline has another one since ({type(self._pipe.scheduler).__name__})",
                remedy="set the scheduler first, then apply the policy",
            )
        return RefusedRun(
            "the transformer was called without a run: the scheduler's set_timesteps was not called before it",
            remedy="call the pipeline, or the scheduler's set_timesteps before each run of your own loop",
        )

    def _step_unnamed(self, original: Method, *args: Any, **kwargs: Any) -> Any:
        if not self._unnamed:
            raise CalibrationMismatch(
                f"branch: the policy has {', '.join(self.forwards.machine.names)}, "
                f"{type(self._pipe).__name__} does not say which one it runs",
                remedy="use a pipeline that enters transformer.cache_context for each branch",
            )
        self.forwards.leave(*self._unnamed)
        result = original(*args, **kwargs)
        if step_index(self._scheduler) < self._document.sampler.steps:
            self.forwards.enter(*self._unnamed)
        return result

    def _check_branches(self) -> None:
        self._settings.require(
            "branches",
            ", ".join(self.forwards.machine.names),
            ", ".join(self.forwards.branches_at_step),
            "use the guidance that the policy was compiled for, and a negative prompt where that asks for one",
        )
