"""Pipelines of two denoisers, one after the other: each runs under the policy, and neither knows of the other."""

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy  # noqa: E402
from budc.runtimes.sampling.schedulers import first_steps  # noqa: E402
from budc.runtimes.sampling.trunk import Trunk, combine  # noqa: E402
from budc.schema import semantics  # noqa: E402
from budc.schema.digests import file_digests  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    CacheConflict,
    CalibrationMismatch,
    RefusedRun,
    UnsupportedModel,
    WeightsMismatch,
)
from budc.schema.policy import Expert, PolicyDocument  # noqa: E402

Run = Callable[..., Any]
ApplyQuietly = Callable[..., AppliedPolicy]

RATIO = 0.8
"""Timesteps are 999, 937, 857, 750, 600, 376: the second denoiser takes over at step 3."""

EXPERT = Expert(denoiser="transformer_2", first_step=3, guidance=3.0)
MASK = (True, True, False, True, True, False)
ROWS: tuple[tuple[float, ...], ...] = ((), (), (1.5, -0.5), (), (), (1.25, -0.25))
NAMES = ("transformer", "transformer_2")
PAYLOADS = ["trunk-residual", "velocity"]


@pytest.fixture
def pair(wan: Any) -> Any:
    """A Wan pipeline with a second denoiser of other weights."""
    second = copy.deepcopy(wan.transformer)
    generator = torch.Generator().manual_seed(1)
    for parameter in second.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    wan.register_modules(transformer_2=second)
    wan.register_to_config(boundary_ratio=RATIO)
    return wan


@pytest.fixture
def document(pair: Any, compiled_for: Callable[..., PolicyDocument]) -> PolicyDocument:
    document = compiled_for(pair, MASK, ROWS, experts=[EXPERT])
    semantics.check(document)
    return document


@pytest.fixture
def call(run: Run) -> Run:
    """Call the pipeline with the guidance of both denoisers."""
    return lambda pipe, **options: run(pipe, **({"guidance_scale_2": 3.0} | options))


def by_hand(pipe: Any, call: Run, payload: str, mask: Sequence[bool] = MASK, rows: Any = ROWS) -> Any:
    """Run the untouched pipeline, the forward of each denoiser replaced by a plain reading of the policy."""
    pipe = copy.deepcopy(pipe)
    timesteps: list[float] = []

    def follow(transformer: Any) -> None:
        trunk, original, cached = Trunk(transformer, payload), transformer.forward, dict[float, list[Any]]()

        def forward(*, return_dict: bool, **inputs: Any) -> Any:
            time, text = float(inputs["timestep"][0]), inputs["encoder_hidden_states"].sum().item()
            if time not in timesteps:
                timesteps.append(time)
            step, own = timesteps.index(time), cached.setdefault(text, [])
            transformer.forward = original
            if mask[step]:
                velocity, residual = trunk.compute(**inputs)
                own.insert(0, residual)
            else:
                velocity = trunk.reuse(combine(rows[step], own[: len(rows[step])]), **inputs)
            transformer.forward = forward
            return (velocity,)

        transformer.forward = forward

    follow(pipe.transformer)
    follow(pipe.transformer_2)
    return call(pipe)


def calls_of(pipe: Any) -> list[str]:
    """Record whose blocks run, from now on."""
    calls: list[str] = []
    for name in NAMES:
        hook = lambda *_, name=name: calls.append(name)  # noqa: E731
        getattr(pipe, name).blocks[0].register_forward_hook(hook)
    return calls


# The policy is what runs ---------------------------------------------------------------------------------


def test_computing_every_step_is_the_untouched_pipeline(
    pair: Any, call: Run, compiled_for: Callable[..., PolicyDocument], apply_quietly: ApplyQuietly
) -> None:
    expected = call(pair)
    assert not torch.equal(expected, call(pair, guidance_scale_2=5.0))
    applied_policy = apply_quietly(pair, compiled_for(pair, [True] * 6, [()] * 6, experts=[EXPERT]))
    assert torch.equal(call(pair), expected)
    applied_policy.remove()
    assert torch.equal(call(pair), expected)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_equals_a_loop_written_by_hand(
    pair: Any, call: Run, document: PolicyDocument, payload: str, apply_quietly: ApplyQuietly
) -> None:
    expected, full = by_hand(pair, call, payload), call(pair)
    apply_quietly(pair, replace(document, policy=replace(document.policy, payload=payload)))
    result = call(pair)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert (result - full).abs().max() > 100 * (result - expected).abs().max()


def test_each_denoiser_runs_its_own_computed_steps(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    calls = calls_of(pair)
    apply_quietly(pair, document)
    call(pair)
    assert calls == ["transformer"] * 4 + ["transformer_2"] * 4


def test_no_residual_of_the_first_is_held_while_the_second_runs(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    applied_policy, held = apply_quietly(pair, document), list[int]()
    pair.transformer_2.proj_out.register_forward_hook(
        lambda *_: held.append(applied_policy._run.forwards.machine.held)
    )
    call(pair)
    # At the forwards of both branches: of steps 3 and 4, which compute, and of step 5, which reuses both for the last time.
    assert held == [0, 1, 2, 3, 2, 0]


# What the pipeline must agree with -----------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "first"), [(0.9, "2"), (0.5, "5"), (None, "none"), (0.1, "6"), (1.0, "0")])
def test_another_boundary_is_refused_when_applied_and_in_a_run(
    pair: Any,
    call: Run,
    document: PolicyDocument,
    apply_quietly: ApplyQuietly,
    ratio: float | None,
    first: str,
) -> None:
    said = rf"boundary_ratio: transformer_2 takes over at step 3 under the policy, in this pipeline at step {first}"
    apply_quietly(pair, document)
    pair.register_to_config(boundary_ratio=ratio)
    with pytest.raises(CalibrationMismatch, match=said):
        call(pair, **({} if ratio is not None else {"guidance_scale_2": None}))
    other = copy.deepcopy(pair)
    for allow in (False, True):
        with pytest.raises(CalibrationMismatch, match=said):
            apply_quietly(other, document, allow_uncalibrated=allow)
    other.register_to_config(boundary_ratio=RATIO)
    apply_quietly(other, document)


def test_a_boundary_that_is_moved_within_its_gap_is_the_same_split(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    # 857 is the first one's last timestep, and the boundary itself belongs to the first.
    pair.register_to_config(boundary_ratio=0.857)
    apply_quietly(pair, document)
    call(pair)
    pair.register_to_config(boundary_ratio=0.8571)
    with pytest.raises(CalibrationMismatch, match="in this pipeline at step 2"):
        call(pair)


@pytest.mark.parametrize("ratio", [0.9999, 0.937, 0.9370001, 0.857, 0.75, 0.6, 0.5, 0.376, 0.1])
def test_first_steps_are_those_of_the_pipeline(pair: Any, call: Run, ratio: float) -> None:
    calls = calls_of(pair)
    pair.register_to_config(boundary_ratio=ratio)
    call(pair)
    first = first_steps([999, 937, 857, 750, 600, 376], [ratio * 1000])
    assert first == (calls.count("transformer") // 2,)


def test_the_other_denoiser_than_the_policy_s_is_refused(
    pair: Any, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(pair, document)
    pair.scheduler.set_timesteps(6)
    with (
        pytest.raises(
            CalibrationMismatch, match="has transformer at step 0, this pipeline runs transformer_2"
        ),
        pair.transformer_2.cache_context("cond"),
    ):
        pass
    assert applied_policy._run.forwards.machine.held == 0


@pytest.mark.parametrize("second", [4.0, None])
def test_guidance_of_the_second_denoiser(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly, second: float | None
) -> None:
    # Where it is not given, the pipeline takes the first one's.
    actual = 5.0 if second is None else second
    said = f"guidance of transformer_2: the policy was calibrated for 3.0, this run has {actual}"
    applied_policy = apply_quietly(pair, document)
    with pytest.raises(CalibrationMismatch, match=said) as refused:
        call(pair, guidance_scale_2=second)
    assert refused.value.remedy == "pass guidance_scale_2=3"
    applied_policy.remove()
    applied_policy = apply_quietly(pair, document, allow_uncalibrated=True)
    with pytest.warns(UncalibratedWarning, match=said):
        call(pair, guidance_scale_2=second)
    assert len(applied_policy.uncalibrated) == 1
    call(pair)
    assert applied_policy.uncalibrated == ()


def test_guidance_of_the_first_denoiser(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pair, document)
    with pytest.raises(
        CalibrationMismatch, match=r"guidance: the policy was calibrated for 5.0, this run has 3.0"
    ):
        call(pair, guidance_scale=3.0)


def test_one_denoiser_under_a_policy_of_two_and_the_other_way_round(
    pair: Any,
    document: PolicyDocument,
    compiled_for: Callable[..., PolicyDocument],
    apply_quietly: ApplyQuietly,
) -> None:
    single = compiled_for(pair)
    with pytest.raises(
        UnsupportedModel, match="the policy has transformer, the pipeline has transformer, transf"
    ):
        apply_quietly(pair, single)
    pair.register_modules(transformer_2=None)
    with pytest.raises(
        UnsupportedModel, match="the policy has transformer, transformer_2, the pipeline has transf"
    ):
        apply_quietly(pair, document)


# Whose weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_of_both_are_verified_in_memory(
    pair: Any, document: PolicyDocument, apply_quietly: ApplyQuietly, name: str
) -> None:
    getattr(pair, name).proj_out.bias.data += 1
    with pytest.raises(WeightsMismatch, match=f"^{name}: the weights in memory have tensor root"):
        apply_quietly(pair, document)


def test_exchanged_denoisers_are_refused(
    pair: Any, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    pair.register_modules(transformer=pair.transformer_2, transformer_2=pair.transformer)
    with pytest.raises(WeightsMismatch, match=r"^transformer: the weights in memory"):
        apply_quietly(pair, document)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_of_both_are_verified_against_their_files(
    pair: Any,
    call: Run,
    compiled_for: Callable[..., PolicyDocument],
    apply_quietly: ApplyQuietly,
    tmp_path: Path,
    name: str,
) -> None:
    pair.save_pretrained(tmp_path)
    files = [
        f"{part}/{file}" for part in NAMES for file in ("config.json", "diffusion_pytorch_model.safetensors")
    ]
    document = compiled_for(pair, MASK, ROWS, experts=[EXPERT], files=file_digests(tmp_path, files))
    apply_quietly(pair, document, weights_dir=tmp_path).remove()
    loaded = type(pair).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    applied_policy = apply_quietly(loaded, document)
    call(loaded)
    applied_policy.remove()
    getattr(loaded, name).proj_out.bias.data += 1
    with pytest.raises(
        WeightsMismatch, match=rf"^{name}\.proj_out\.bias in memory is not what the model folder holds"
    ):
        apply_quietly(loaded, document)


# What stays ----------------------------------------------------------------------------------------------


def snapshot(pipe: Any) -> list[dict[str, Any]]:
    modules = [dict(vars(module)) for name in NAMES for module in getattr(pipe, name).modules()]
    return [dict(vars(pipe)), dict(vars(pipe.scheduler)), *modules]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_remove_undoes_everything(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly, payload: str
) -> None:
    full, before = call(pair), snapshot(pair)
    applied_policy = apply_quietly(pair, replace(document, policy=replace(document.policy, payload=payload)))
    copied = copy.deepcopy(pair)
    assert snapshot(pair) != before
    applied_policy.remove()
    assert snapshot(pair) == before
    assert torch.equal(call(copied), full)
    gone = weakref.ref(copied)
    del copied
    gc.collect()
    assert gone() is None


def test_a_conflict_at_the_second_leaves_the_first_alone(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly
) -> None:
    before = snapshot(pair)
    trunk = Trunk(pair.transformer_2)
    with trunk.installed(), pytest.raises(CacheConflict, match="already replaced by a SpanList"):
        apply_quietly(pair, document)
    assert snapshot(pair) == before
    apply_quietly(pair, document)
    with pytest.raises(CacheConflict):
        apply_quietly(pair, document)
    call(pair)


@pytest.mark.parametrize("name", NAMES)
def test_an_exchanged_denoiser_is_refused_in_a_run(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly, name: str
) -> None:
    apply_quietly(pair, document)
    pair.register_modules(**{name: copy.deepcopy(getattr(pair, name))})
    with pytest.raises(RefusedRun, match=f"pipe.{name} is another one than the policy was applied to"):
        call(pair)


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_in_either_leaves_nothing(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly, name: str
) -> None:
    applied_policy = apply_quietly(pair, document)
    expected = call(pair)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    hook = getattr(pair, name).proj_out.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        call(pair, seed=1)
    hook.remove()
    assert applied_policy._run.forwards.machine.held == 0
    assert torch.equal(call(pair), expected)


@pytest.mark.parametrize("last", [1, 2, 4])
def test_an_interrupt_lets_go_of_residuals(
    pair: Any, call: Run, document: PolicyDocument, apply_quietly: ApplyQuietly, last: int
) -> None:
    applied_policy, held = apply_quietly(pair, document), list[int]()
    expected = call(pair)

    def stop(pipeline: Any, step: int, _: Any, tensors: Any) -> Any:
        if step == last:
            pipeline._interrupt = True
            held.append(applied_policy._run.forwards.machine.held)
        return tensors

    call(pair, seed=1, callback_on_step_end=stop)
    assert held == [0 if last == 2 else 4]
    assert applied_policy._run.forwards.machine.held == 0
    assert torch.equal(call(pair), expected)
