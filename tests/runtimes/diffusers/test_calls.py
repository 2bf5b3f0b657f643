"""Calls: a run is alone on its pipeline, and pipelines that share a component with it cannot disturb it."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.diffusers.apply import AppliedPolicy  # noqa: E402
from budc.schema.errors import RefusedRun, UnsupportedModel  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402

SECONDS = 60
Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
ApplyQuietly = Callable[..., AppliedPolicy]


def neighbour_of(pipe: Any, **own: Any) -> Any:
    """Another pipeline of the same class that shares all components but those in `own`."""
    other = type(pipe).from_pipe(pipe, **own)
    other.set_progress_bar_config(disable=True)
    return other


def in_callback(action: Callable[[], Any], step: int = 2) -> Callable[..., Any]:
    """A callback at the end of each step that calls `action` at one of them, and lets its refusal through."""

    def callback(_: Any, index: int, __: Any, tensors: Any) -> Any:
        if index == step:
            action()
        return tensors

    return callback


@pytest.mark.parametrize("shared", ["everything", "transformer", "scheduler"])
def test_a_pipeline_that_shares_components_is_plain(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, shared: str
) -> None:
    plain = run(pipe, guidance_scale=9.0, num_inference_steps=4)
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    own = {
        "everything": {},
        "transformer": {"scheduler": copy.deepcopy(pipe.scheduler)},
        "scheduler": {"transformer": copy.deepcopy(pipe.transformer)},
    }[shared]
    for other in (neighbour_of(pipe, **own), type(pipe)(**(pipe.components | own))):
        other.set_progress_bar_config(disable=True)
        assert torch.equal(run(other, guidance_scale=9.0, num_inference_steps=4), plain)
        assert torch.equal(run(pipe), expected)
    assert applied_policy.uncalibrated == ()


def test_image_to_image_with_shared_components_is_plain(
    flux: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    from diffusers import FluxImg2ImgPipeline

    flux.vae.register_to_config(shift_factor=0.0)

    def edit(pipe: Any) -> Any:
        other = FluxImg2ImgPipeline.from_pipe(pipe)
        other.set_progress_bar_config(disable=True)
        return run(other, image=torch.zeros(1, 3, 32, 48), strength=0.5)

    plain = edit(flux)
    apply_quietly(flux, compiled_for(flux))
    expected = run(flux)
    assert torch.equal(edit(flux), plain)
    assert torch.equal(run(flux), expected)
    with pytest.raises(RefusedRun, match="FluxImg2ImgPipeline shares its scheduler with the FluxPipeline"):
        run(flux, callback_on_step_end=in_callback(lambda: edit(flux)))
    assert torch.equal(run(flux), expected)


@pytest.mark.parametrize("shared", ["transformer", "scheduler"])
def test_a_pipeline_that_shares_a_component_is_refused_during_a_run_and_does_not_disturb_it(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, shared: str
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    separate = "scheduler" if shared == "transformer" else "transformer"
    other = neighbour_of(pipe, **{separate: copy.deepcopy(getattr(pipe, separate))})
    name, refusals = type(pipe).__name__, []

    def disturb() -> None:
        with pytest.raises(
            RefusedRun, match=f"this {name} shares its {shared} with the {name} that"
        ) as refusal:
            run(other, guidance_scale=9.0)
        refusals.append(refusal.value)

    assert torch.equal(run(pipe, callback_on_step_end=in_callback(disturb)), expected)
    assert f"{shared} of its own" in refusals[0].remedy


def test_a_run_begun_in_a_callback_is_refused_and_the_first_goes_on(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    refused = []

    def begin() -> None:
        with pytest.raises(RefusedRun, match="another run of it was begun in the same thread") as refusal:
            run(pipe, seed=1, guidance_scale=9.0)
        refused.append(refusal)

    assert torch.equal(run(pipe, callback_on_step_end=in_callback(begin)), expected)
    assert refused
    assert torch.equal(run(pipe), expected)


def test_a_run_in_another_thread_waits(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    expected = {seed: run(pipe, seed=seed) for seed in range(4)}
    results: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: results.update({seed: run(pipe, seed=seed)}))
        for seed in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.keys() == expected.keys()
    assert all(torch.equal(results[seed], latents) for seed, latents in expected.items())


def test_a_run_that_failed_in_a_callback_lets_the_next_thread_run(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)

    def fail() -> None:
        assert applied_policy._run.forwards.machine.held > 0
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        run(pipe, callback_on_step_end=in_callback(fail))
    assert applied_policy._run.forwards.machine.held == 0
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(run(pipe)))
    thread.start()
    thread.join()
    assert torch.equal(results[0], expected)


class Held:
    """Work in another thread that waits, at a moment of its own, for the test to go on."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.result: Any = None
        self._reached, self._released = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,))

    def _run(self, work: Callable[..., Any]) -> None:
        try:
            self.result = work()
        except RefusedRun as refusal:
            self.result = refusal
        self._reached.set()

    def here(self, *_: Any) -> None:
        """Wait, where this thread is the one that works."""
        if threading.current_thread() is self._thread and not self._reached.is_set():
            self._reached.set()
            assert self._released.wait(SECONDS)

    def start(self) -> None:
        self._thread.start()
        assert self._reached.wait(SECONDS)

    def end(self) -> Any:
        self._released.set()
        self._thread.join(SECONDS)
        return self.result


@pytest.mark.parametrize("shared", ["transformer", "scheduler"])
def test_a_run_waits_for_that_of_a_neighbour_in_another_thread(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, shared: str
) -> None:
    """The neighbour is within a forward of the shared transformer, or between two steps of the shared scheduler."""
    separate = "scheduler" if shared == "transformer" else "transformer"
    other = neighbour_of(pipe, **{separate: copy.deepcopy(getattr(pipe, separate))})
    plain = run(other, guidance_scale=9.0)
    apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    neighbour = Held(lambda: run(other, guidance_scale=9.0))
    hook = next(other.transformer.children()).register_forward_hook(neighbour.here)
    neighbour.start()
    own = threading.Thread(target=lambda: results.append(run(pipe)))
    results: list[Any] = []
    own.start()
    own.join(0.3)
    assert not results
    latents = neighbour.end()
    own.join(SECONDS)
    hook.remove()
    assert torch.equal(latents, plain)
    assert torch.equal(results[0], expected)
    assert torch.equal(run(pipe), expected)


def test_a_neighbour_in_another_thread_is_refused_within_a_forward_and_does_not_disturb_it(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    other = neighbour_of(pipe, scheduler=copy.deepcopy(pipe.scheduler))
    plain = run(other)
    apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    own = Held(lambda: run(pipe))
    hook = next(pipe.transformer.children()).register_forward_hook(own.here)
    own.start()
    with pytest.raises(RefusedRun, match="shares its transformer with the"):
        run(other)
    assert torch.equal(own.end(), expected)
    hook.remove()
    assert torch.equal(run(other), plain)


def test_a_run_begun_in_a_neighbours_callback_is_refused_and_the_neighbour_goes_on(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    other = neighbour_of(pipe)
    plain = run(other)
    apply_quietly(pipe, compiled_for(pipe))
    expected, refused = run(pipe), []

    def begin() -> None:
        with pytest.raises(RefusedRun, match="this run was begun in the same thread") as refusal:
            run(pipe)
        refused.append(refusal)

    assert torch.equal(run(other, callback_on_step_end=in_callback(begin)), plain)
    assert refused
    assert torch.equal(run(pipe), expected)


def test_copies_have_the_class_itself(
    pipe: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    original = type(pipe)
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    assert isinstance(pipe, original)
    assert type(pipe).__name__ == original.__name__
    assert type(copy.copy(pipe)) is type(copy.deepcopy(pipe)) is original
    assert type(pickle.loads(pickle.dumps(pipe))) is original
    applied_policy.remove()
    assert type(pipe) is original


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
def test_controlnet_is_refused_by_name(
    flux: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    from diffusers import FluxControlNetModel, FluxControlNetPipeline

    config = {name: flux.transformer.config[name] for name in ("attention_head_dim", "num_attention_heads")}
    network = FluxControlNetModel.from_transformer(
        flux.transformer, num_layers=1, num_single_layers=1, **config
    )
    flux.vae.register_to_config(shift_factor=0.0)
    pipe = FluxControlNetPipeline.from_pipe(flux, controlnet=network)
    pipe.set_progress_bar_config(disable=True)
    options = {"control_image": torch.zeros(1, 3, 32, 48)}
    plain = run(pipe, **options)
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    with pytest.raises(UnsupportedModel, match="was given controlnet_block_samples, which enters between"):
        run(pipe, **options)
    applied_policy.remove()
    assert torch.equal(run(pipe, **options), plain)
