"""Pipelines under a policy: the latents of a loop written by hand, and what could break that at run time."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.diffusers.apply import AppliedPolicy  # noqa: E402
from budc.schema.errors import CalibrationMismatch, RefusedRun  # noqa: E402
from budc.schema.policy import BranchPolicy, PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
ApplyQuietly = Callable[..., AppliedPolicy]
AppliedQuietly = Callable[..., contextlib.AbstractContextManager[AppliedPolicy]]

STEPS = 6
MASK = (True, False, True, True, False, False)
PREDICTOR = ((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25))
PAYLOADS = ["trunk-residual", "velocity"]


class Adding(torch.nn.Module):
    """Replaces the blocks in a hand-written loop: adds a residual."""

    def __init__(self, residual: Any, text_first: bool) -> None:
        super().__init__()
        self.residual, self.text_first = residual, text_first

    def forward(self, hidden_states: Any, encoder_hidden_states: Any, *_: Any, **__: Any) -> Any:
        hidden_states = hidden_states + self.residual
        return (encoder_hidden_states, hidden_states) if self.text_first else hidden_states


def by_hand(
    pipe: Any, run: Run, payload: str, mask: Any = MASK, predictor: Any = PREDICTOR, **options: Any
) -> Any:
    """Run the untouched pipeline, its forward replaced by a plain reading of the policy.

    Forwards are told apart by their text, steps by the timestep: nothing here knows of the runtime.
    """
    pipe = copy.deepcopy(pipe)
    transformer = pipe.transformer
    wan = hasattr(transformer, "blocks")
    lists = ["blocks"] if wan else ["transformer_blocks", "single_transformer_blocks"]
    whole = {name: getattr(transformer, name) for name in lists}
    original, residuals, timesteps = transformer.forward, {}, []

    def forward(**inputs: Any) -> Any:
        key = inputs["encoder_hidden_states"].sum().item()
        time = float(inputs["timestep"][0])
        if time not in timesteps:
            timesteps.append(time)
        k, cached = timesteps.index(time), residuals.setdefault(key, [])
        if not mask[k]:
            combined = sum(c * r for c, r in zip(predictor[k], cached, strict=False))
            if payload == "velocity":
                return (combined,)
            for name in lists:
                adding = [Adding(combined, not wan)] if name == lists[-1] else []
                setattr(transformer, name, torch.nn.ModuleList(adding))
            out = original(**inputs)
            for name, blocks in whole.items():
                setattr(transformer, name, blocks)
            return out
        seen: list[Any] = []
        into = whole[lists[0]][0].register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(args[0] if wan else kwargs["hidden_states"]), with_kwargs=True
        )
        end = whole[lists[-1]][-1].register_forward_hook(
            lambda _, args, out: seen.append(out if wan else out[1])
        )
        out = original(**inputs)
        into.remove()
        end.remove()
        cached.insert(0, out[0] if payload == "velocity" else seen[1] - seen[0])
        return out

    transformer.forward = forward
    return run(pipe, **options)


# The policy is what runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
def test_computing_every_step_is_the_untouched_pipeline(
    pipe: Any, run: Run, compiled_for: CompiledFor, payload: str, applied_quietly: AppliedQuietly
) -> None:
    expected = run(pipe)
    with applied_quietly(pipe, compiled_for(pipe, [True] * STEPS, [[]] * STEPS, payload=payload)):
        assert torch.equal(run(pipe), expected)
    assert torch.equal(run(pipe), expected)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_a_loop_written_by_hand(
    pipe: Any, run: Run, compiled_for: CompiledFor, payload: str, batch: int, apply_quietly: ApplyQuietly
) -> None:
    options: dict[str, Any] = {"batch": batch}
    expected = by_hand(pipe, run, payload, **options)
    apply_quietly(pipe, compiled_for(pipe, payload=payload))
    result = run(pipe, **options)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    full = run(copy.deepcopy(pipe), **options)
    assert (result - full).abs().max() > 100 * (result - expected).abs().max()


def test_reused_steps_run_no_block(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    calls: list[int] = []
    name = "blocks" if hasattr(pipe.transformer, "blocks") else "single_transformer_blocks"
    getattr(pipe.transformer, name)[0].register_forward_hook(lambda *_: calls.append(1))
    apply_quietly(pipe, compiled_for(pipe))
    run(pipe)
    assert len(calls) == 3 * (2 if name == "blocks" else 1)


def test_branches_may_have_masks_of_their_own(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    cond = BranchPolicy.of(["cond"], PREDICTOR)
    uncond = BranchPolicy.plain(["uncond"], [True] + [False] * 5)
    calls: list[Any] = []
    wan.transformer.blocks[0].register_forward_hook(lambda _, args, out: calls.append(args[1].sum().item()))
    apply_quietly(wan, compiled_for(wan, branches=[cond, uncond]))
    run(wan)
    assert sorted(calls.count(value) for value in set(calls)) == [1, 3]


def test_several_calls_in_a_row_and_two_seeds(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    first, other = run(pipe), run(pipe, seed=1)
    assert torch.equal(run(pipe), first)
    assert torch.equal(run(pipe, seed=1), other)
    assert not torch.equal(first, other)


def test_runs_in_inference_mode(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    expected = run(wan)
    with torch.inference_mode():
        assert torch.equal(run(wan), expected)


def test_decodes_as_always(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    assert run(wan, output_type="pt").shape == (1, 5, 3, 16, 32)


def test_adapters_where_the_policy_allows_them(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    peft = pytest.importorskip("peft")
    document = compiled_for(wan, adapters="any")
    plain = run(wan)
    wan.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    expected = by_hand(wan, run, "trunk-residual")
    apply_quietly(wan, document)
    torch.testing.assert_close(run(wan), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(run(wan), plain)


def test_a_single_branch_needs_no_name(
    flux: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    expected = by_hand(flux, run, "trunk-residual")
    apply_quietly(flux, compiled_for(flux))
    # As pipelines do that never call `cache_context`.
    vars(flux.transformer)["cache_context"] = lambda name, **_: contextlib.nullcontext()
    torch.testing.assert_close(run(flux), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run(flux), expected, rtol=1e-5, atol=1e-5)


# Schedules -----------------------------------------------------------------------------------------------


def test_exact_sigmas_are_not_shifted_again(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    sigmas = [0.99, 0.9, 0.7, 0.55, 0.3, 0.05, 0.0]
    document = compiled_for(pipe, [True] * STEPS, [[]] * STEPS, sigmas=sigmas)
    seen: list[float] = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    apply_quietly(pipe, document)
    first = run(pipe)
    assert torch.equal(pipe.scheduler.sigmas, torch.tensor(sigmas))
    assert pipe.scheduler.sigmas.device.type == "cpu"
    steps = torch.tensor(sorted(set(seen), reverse=True))
    scale = 1000.0 if type(pipe).__name__ == "WanPipeline" else 1.0
    torch.testing.assert_close(steps, torch.tensor(sigmas[:-1]) * scale)
    assert torch.equal(run(pipe), first)


def test_default_schedule_stays_bit_equal(
    pipe: Any, compiled_for: CompiledFor, run: Run, apply_quietly: ApplyQuietly
) -> None:
    run(pipe)
    sigmas, timesteps = pipe.scheduler.sigmas.clone(), pipe.scheduler.timesteps.clone()
    apply_quietly(pipe, compiled_for(pipe))
    run(pipe)
    assert torch.equal(pipe.scheduler.sigmas, sigmas)
    assert torch.equal(pipe.scheduler.timesteps, timesteps)
    assert pipe.scheduler.timesteps.dtype == timesteps.dtype


def test_step_is_known_before_the_scheduler_has_stepped(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    indices: list[Any] = []
    pipe.transformer.register_forward_pre_hook(
        lambda *_: indices.append((pipe.scheduler.step_index, pipe.scheduler.begin_index))
    )
    run(pipe)
    assert indices[0] == (None, 0)
    assert pipe.scheduler.step_index == STEPS
    run(pipe)


@pytest.mark.parametrize("allow", [False, True])
def test_another_number_of_steps_never_runs(
    pipe: Any, run: Run, compiled_for: CompiledFor, allow: bool, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe), allow_uncalibrated=allow)
    with pytest.raises(CalibrationMismatch, match="steps: the policy has 6, this run asks for 5"):
        run(pipe, num_inference_steps=5)
    run(pipe)


def test_sigmas_of_the_caller_are_refused(
    flux: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(flux, compiled_for(flux))
    with pytest.raises(CalibrationMismatch, match="sigmas: the policy brings its own schedule"):
        run(flux, sigmas=[1.0, 0.9, 0.8, 0.5, 0.3, 0.1])


# Runs cut short ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_a_forward_leaves_nothing(
    pipe: Any,
    run: Run,
    compiled_for: CompiledFor,
    payload: str,
    error: type[BaseException],
    apply_quietly: ApplyQuietly,
) -> None:
    applied_policy = apply_quietly(pipe, compiled_for(pipe, payload=payload))
    expected, full = run(pipe), run(copy.deepcopy(pipe))
    count = 0

    def fail(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise error

    hook = pipe.transformer.proj_out.register_forward_hook(fail)
    with pytest.raises(error):
        run(pipe, seed=1)
    hook.remove()
    assert applied_policy._run.forwards.machine.held == 0
    assert torch.equal(run(pipe), expected)
    applied_policy.remove()
    assert torch.equal(run(pipe), full)


def test_an_exception_in_a_callback_is_not_seen_by_the_next_run(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)

    def fail(_: Any, step: int, __: Any, tensors: Any) -> Any:
        if step == 2:
            raise ValueError("stop")
        return tensors

    with pytest.raises(ValueError, match="stop"):
        run(pipe, seed=1, callback_on_step_end=fail)
    assert torch.equal(run(pipe), expected)


def test_an_interrupt_lets_go_of_residuals(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)

    def stop(pipeline: Any, step: int, _: Any, tensors: Any) -> Any:
        if step == 2:
            pipeline._interrupt = True
            assert applied_policy._run.forwards.machine.held > 0
        return tensors

    run(pipe, seed=1, callback_on_step_end=stop)
    assert applied_policy._run.forwards.machine.held == 0
    assert torch.equal(run(pipe), expected)


def test_a_call_without_a_run_is_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    run(wan)
    with pytest.raises(RefusedRun, match="without a run"), wan.transformer.cache_context("cond"):
        pass
