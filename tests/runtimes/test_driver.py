"""Pipelines under a policy: the latents of a loop written by hand, and what could break that at run time."""

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

from budc.runtimes.diffusers import (  # noqa: E402
    Handle,
    UncalibratedWarning,
    UnsignedWarning,
    applied,
    apply,
)
from budc.runtimes.span import SpanList  # noqa: E402
from budc.schema.errors import CacheConflict, CalibrationMismatch, RefusedRun  # noqa: E402
from budc.schema.policy import BranchPolicy, PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]

STEPS = 6
MASK = (True, False, True, True, False, False)
PREDICTOR = ((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25))
FAMILIES = ["wan", "flux"]
PAYLOADS = ["trunk-residual", "velocity"]


@pytest.fixture(params=FAMILIES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def arm(pipe: Any, document: PolicyDocument, **options: Any) -> Handle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        return apply(pipe, document, allow_unsigned=True, **options)


class Stand(torch.nn.Module):
    """What a hand-written loop puts in place of the blocks: adds a residual."""

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
        k, kept = timesteps.index(time), residuals.setdefault(key, [])
        if not mask[k]:
            combined = sum(c * r for c, r in zip(predictor[k], kept, strict=False))
            if payload == "velocity":
                return (combined,)
            for name in lists:
                stand = [Stand(combined, not wan)] if name == lists[-1] else []
                setattr(transformer, name, torch.nn.ModuleList(stand))
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
        kept.insert(0, out[0] if payload == "velocity" else seen[1] - seen[0])
        return out

    transformer.forward = forward
    return run(pipe, **options)


# The policy is what runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
def test_computing_every_step_is_the_untouched_pipeline(
    pipe: Any, run: Run, compiled_for: CompiledFor, payload: str
) -> None:
    expected = run(pipe)
    with applied_quietly(pipe, compiled_for(pipe, [True] * STEPS, [[]] * STEPS, payload=payload)):
        assert torch.equal(run(pipe), expected)
    assert torch.equal(run(pipe), expected)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_a_loop_written_by_hand(
    pipe: Any, run: Run, compiled_for: CompiledFor, payload: str, batch: int
) -> None:
    options: dict[str, Any] = {"batch": batch}
    expected = by_hand(pipe, run, payload, **options)
    arm(pipe, compiled_for(pipe, payload=payload))
    result = run(pipe, **options)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    full = run(copy.deepcopy(pipe), **options)
    assert (result - full).abs().max() > 100 * (result - expected).abs().max()


def test_reused_steps_run_no_block(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    calls: list[int] = []
    name = "blocks" if hasattr(pipe.transformer, "blocks") else "single_transformer_blocks"
    getattr(pipe.transformer, name)[0].register_forward_hook(lambda *_: calls.append(1))
    arm(pipe, compiled_for(pipe))
    run(pipe)
    assert len(calls) == 3 * (2 if name == "blocks" else 1)


def test_branches_may_have_masks_of_their_own(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    rows = [list(row) for row in PREDICTOR]
    cond = BranchPolicy(names=["cond"], mask=list(MASK), predictor=rows)
    uncond = BranchPolicy(names=["uncond"], mask=[True] + [False] * 5, predictor=[[]] + [[1.0]] * 5)
    calls: list[Any] = []
    wan.transformer.blocks[0].register_forward_hook(lambda _, args, out: calls.append(args[1].sum().item()))
    arm(wan, compiled_for(wan, branches=[cond, uncond]))
    run(wan)
    assert sorted(calls.count(value) for value in set(calls)) == [1, 3]


def test_several_calls_in_a_row_and_two_seeds(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(pipe, compiled_for(pipe))
    first, other = run(pipe), run(pipe, seed=1)
    assert torch.equal(run(pipe), first)
    assert torch.equal(run(pipe, seed=1), other)
    assert not torch.equal(first, other)


def test_decodes_as_always(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    assert run(wan, output_type="pt").shape == (1, 5, 3, 16, 32)


# Schedules -----------------------------------------------------------------------------------------------


def test_exact_sigmas_are_not_shifted_again(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    sigmas = [0.99, 0.9, 0.7, 0.55, 0.3, 0.05, 0.0]
    document = compiled_for(pipe, [True] * STEPS, [[]] * STEPS, sigmas=sigmas)
    seen: list[float] = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    arm(pipe, document)
    first = run(pipe)
    assert torch.equal(pipe.scheduler.sigmas, torch.tensor(sigmas))
    assert pipe.scheduler.sigmas.device.type == "cpu"
    steps = torch.tensor(sorted(set(seen), reverse=True))
    scale = 1000.0 if type(pipe).__name__ == "WanPipeline" else 1.0
    torch.testing.assert_close(steps, torch.tensor(sigmas[:-1]) * scale)
    assert torch.equal(run(pipe), first)


def test_default_schedule_stays_bit_equal(pipe: Any, compiled_for: CompiledFor, run: Run) -> None:
    run(pipe)
    sigmas, timesteps = pipe.scheduler.sigmas.clone(), pipe.scheduler.timesteps.clone()
    arm(pipe, compiled_for(pipe))
    run(pipe)
    assert torch.equal(pipe.scheduler.sigmas, sigmas)
    assert torch.equal(pipe.scheduler.timesteps, timesteps)
    assert pipe.scheduler.timesteps.dtype == timesteps.dtype


def test_step_is_known_before_the_scheduler_has_stepped(
    pipe: Any, run: Run, compiled_for: CompiledFor
) -> None:
    arm(pipe, compiled_for(pipe))
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
    pipe: Any, run: Run, compiled_for: CompiledFor, allow: bool
) -> None:
    arm(pipe, compiled_for(pipe), allow_uncalibrated=allow)
    with pytest.raises(CalibrationMismatch, match="steps: the policy has 6, this run asks for 5"):
        run(pipe, num_inference_steps=5)
    run(pipe)


def test_sigmas_of_the_caller_are_refused(flux: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(flux, compiled_for(flux))
    with pytest.raises(CalibrationMismatch, match="sigmas: the policy brings its own schedule"):
        run(flux, sigmas=[1.0, 0.9, 0.8, 0.5, 0.3, 0.1])


# Refusals name the field and both values -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("wan", {"guidance_scale": 4.0}, "guidance: the policy was calibrated for 5.0, this run has 4.0"),
        ("wan", {"height": 32}, "height: the policy was calibrated for 16, this run has 32"),
        ("wan", {"num_frames": 9}, "frames: the policy was calibrated for 5, this run has 9"),
        ("flux", {"guidance_scale": 2.0}, "guidance: the policy was calibrated for 3.5, this run has 2.0"),
        ("flux", {"width": 64}, "width: the policy was calibrated for 48, this run has 64"),
    ],
)
def test_uncalibrated_settings(
    family: str,
    options: dict[str, Any],
    message: str,
    run: Run,
    compiled_for: CompiledFor,
    request: pytest.FixtureRequest,
) -> None:
    pipe = request.getfixturevalue(family)
    document = compiled_for(pipe)
    with applied_quietly(pipe, document) as handle:
        with pytest.raises(CalibrationMismatch, match=message):
            run(pipe, **options)
        run(pipe)
        assert handle.uncalibrated == ()
    with applied_quietly(pipe, document, allow_uncalibrated=True) as handle:
        with pytest.warns(UncalibratedWarning, match=message):
            run(pipe, **options)
        assert any(message in line for line in handle.uncalibrated)
        run(pipe)
        assert handle.uncalibrated == ()


def test_size_of_given_latents(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    with pytest.raises(CalibrationMismatch, match="height: the policy was calibrated for 16"):
        run(wan, latents=torch.randn(1, 16, 2, 4, 4))


def test_tokens_are_checked_where_sizes_are_not(wan: Any, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    wan._guidance_scale = 5.0
    wan.scheduler.set_timesteps(STEPS)
    given = {"timestep": torch.tensor([999]), "encoder_hidden_states": torch.zeros(1, 8, 16)}
    with (
        pytest.raises(
            CalibrationMismatch, match="shape: the policy was calibrated for 4 tokens, this run has 2"
        ),
        torch.no_grad(),
        wan.transformer.cache_context("cond"),
    ):
        wan.transformer(hidden_states=torch.zeros(1, 16, 1, 2, 4), **given)


def test_text_length(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan, text_tokens=8))
    run(wan)
    with pytest.raises(CalibrationMismatch, match="text tokens: the policy was calibrated for 8, this"):
        run(wan, max_sequence_length=16)


def test_dtype(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    wan.transformer.to(torch.bfloat16)
    with pytest.raises(CalibrationMismatch, match=r"dtype: .* for float32, this run has bfloat16"):
        run(wan)


def test_adapters(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    peft = pytest.importorskip("peft")
    arm(wan, compiled_for(wan))
    config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    plain = run(wan)
    wan.transformer.add_adapter(config, adapter_name="style")
    with pytest.raises(CalibrationMismatch, match=r"adapters: .* for none, this run has style"):
        run(wan)
    wan.transformer.disable_adapters()
    assert torch.equal(run(wan), plain)


def test_adapters_where_the_policy_allows_them(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    peft = pytest.importorskip("peft")
    document = compiled_for(wan, adapters="any")
    plain = run(wan)
    wan.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    expected = by_hand(wan, run, "trunk-residual")
    arm(wan, document)
    torch.testing.assert_close(run(wan), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(run(wan), plain)


def test_scheduler_settings(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    document = compiled_for(wan)
    wan.scheduler = type(wan.scheduler).from_config(wan.scheduler.config, flow_shift=5.0)
    with pytest.raises(
        CalibrationMismatch, match=r"scheduler\.flow_shift: .* for 3\.0, this run has 5\.0"
    ) as caught:
        arm(wan, document)
    assert "from_config(pipe.scheduler.config, flow_shift=3.0)" in caught.value.remedy


@pytest.mark.parametrize("how", ["replaced", "written to"])
def test_a_schedule_that_is_changed_during_a_run_is_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, how: str
) -> None:
    expected = run(copy.deepcopy(wan))
    handle = arm(wan, compiled_for(wan))

    def change(pipe: Any, step: int, _timestep: Any, tensors: Any) -> Any:
        if step == 2 and how == "replaced":
            pipe.scheduler.sigmas = pipe.scheduler.sigmas.clone()
        elif step == 2:
            pipe.scheduler.sigmas[4] *= 1.01
        return tensors

    with pytest.raises(CalibrationMismatch, match="sigmas: the schedule was changed during the run"):
        run(wan, callback_on_step_end=change)
    handle.remove()
    assert torch.equal(run(wan), expected)


def test_runs_in_inference_mode(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    expected = run(wan)
    with torch.inference_mode():
        assert torch.equal(run(wan), expected)


def test_scheduler_exchanged_after_apply(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    wan.scheduler = type(wan.scheduler).from_config(wan.scheduler.config)
    with pytest.raises(CalibrationMismatch, match="scheduler: the policy was applied with UniPC"):
        run(wan)


def test_transformer_exchanged_after_apply(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    wan.transformer = copy.deepcopy(wan.transformer)
    with pytest.raises(RefusedRun, match="another one than the policy was applied to"):
        run(wan)


def test_block_list_exchanged_after_apply(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    handle = arm(wan, compiled_for(wan))
    wan.transformer.blocks = wan.transformer.blocks[:1]
    with pytest.raises(RefusedRun, match="block list was replaced"):
        run(wan)
    handle.remove()


def test_guidance_of_another_kind(flux: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(flux, compiled_for(flux))
    negative = {
        "negative_prompt_embeds": torch.zeros(1, 5, 16),
        "negative_pooled_prompt_embeds": torch.zeros(1, 8),
    }
    with pytest.raises(CalibrationMismatch, match="the policy has cond, this run asks for uncond"):
        run(flux, true_cfg_scale=4.0, **negative)
    run(flux)


# Branch names --------------------------------------------------------------------------------------------


def without_branch_names(pipe: Any) -> None:
    """Make the pipeline one of those that never call `cache_context`."""
    import contextlib

    vars(pipe.transformer)["cache_context"] = lambda name, **_: contextlib.nullcontext()


def test_a_pipeline_that_names_no_branch_is_refused(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    without_branch_names(wan)
    with pytest.raises(CalibrationMismatch, match="has cond, uncond, WanPipeline does not say"):
        run(wan)


def test_a_single_branch_needs_no_name(flux: Any, run: Run, compiled_for: CompiledFor) -> None:
    expected = by_hand(flux, run, "trunk-residual")
    arm(flux, compiled_for(flux))
    without_branch_names(flux)
    torch.testing.assert_close(run(flux), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run(flux), expected, rtol=1e-5, atol=1e-5)


def test_a_split_batch_is_refused(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    original = type(wan.transformer).forward

    def halves(**inputs: Any) -> Any:
        parts = [{k: v[i : i + 1] if torch.is_tensor(v) else v for k, v in inputs.items()} for i in range(2)]
        return (torch.cat([original(wan.transformer, **part)[0] for part in parts]),)

    wan.transformer.forward = halves
    arm(wan, compiled_for(wan))
    with pytest.raises(RefusedRun, match="ran twice in one step"):
        run(wan, batch=2)


# Runs cut short ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_a_forward_leaves_nothing(
    pipe: Any, run: Run, compiled_for: CompiledFor, payload: str, error: type[BaseException]
) -> None:
    handle = arm(pipe, compiled_for(pipe, payload=payload))
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
    assert handle._machine.held == 0
    assert torch.equal(run(pipe), expected)
    handle.remove()
    assert torch.equal(run(pipe), full)


def test_an_exception_in_a_callback_is_not_seen_by_the_next_run(
    pipe: Any, run: Run, compiled_for: CompiledFor
) -> None:
    arm(pipe, compiled_for(pipe))
    expected = run(pipe)

    def fail(_: Any, step: int, __: Any, tensors: Any) -> Any:
        if step == 2:
            raise ValueError("stop")
        return tensors

    with pytest.raises(ValueError, match="stop"):
        run(pipe, seed=1, callback_on_step_end=fail)
    assert torch.equal(run(pipe), expected)


def test_an_interrupt_lets_go_of_residuals(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    handle = arm(pipe, compiled_for(pipe))
    expected = run(pipe)

    def stop(pipeline: Any, step: int, _: Any, tensors: Any) -> Any:
        if step == 2:
            pipeline._interrupt = True
            assert handle._machine.held > 0
        return tensors

    run(pipe, seed=1, callback_on_step_end=stop)
    assert handle._machine.held == 0
    assert torch.equal(run(pipe), expected)


def test_a_call_without_a_run_is_refused(wan: Any, run: Run, compiled_for: CompiledFor) -> None:
    arm(wan, compiled_for(wan))
    run(wan)
    with pytest.raises(RefusedRun, match="without a run"), wan.transformer.cache_context("cond"):
        pass


# Armed and removed ---------------------------------------------------------------------------------------


def snapshot(pipe: Any) -> list[dict[str, Any]]:
    modules = [dict(vars(module)) for module in pipe.transformer.modules()]
    hooks = [{"hooks": list(module._forward_hooks.values())} for module in pipe.transformer.modules()]
    kinds = [{"kind": type(module)} for module in pipe.transformer.modules()]
    return [dict(vars(pipe)), dict(vars(pipe.scheduler)), *modules, *hooks, *kinds]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_remove_undoes_everything(pipe: Any, compiled_for: CompiledFor, payload: str) -> None:
    document = compiled_for(pipe, payload=payload)
    before = snapshot(pipe)
    handle = arm(pipe, document)
    assert snapshot(pipe) != before
    handle.remove()
    assert snapshot(pipe) == before
    handle.remove()
    assert snapshot(pipe) == before


def test_removed_after_runs(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    document = compiled_for(pipe)
    expected = run(pipe)
    with applied_quietly(pipe, document):
        run(pipe)
    assert torch.equal(run(pipe), expected)
    assert "set_timesteps" not in vars(pipe.scheduler)
    assert "cache_context" not in vars(pipe.transformer)


def test_nothing_holds_the_pipeline_after_remove(wan: Any, compiled_for: CompiledFor) -> None:
    other = copy.deepcopy(wan)
    arm(other, compiled_for(other)).remove()
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_two_pipelines_of_one_class(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    other = copy.deepcopy(pipe)
    expected = run(other)
    with applied_quietly(pipe, compiled_for(pipe)):
        cached = run(pipe)
        assert torch.equal(run(other), expected)
        with applied_quietly(other, compiled_for(other, [True] * STEPS, [[]] * STEPS)):
            assert torch.equal(run(other), expected)
            assert torch.equal(run(pipe), cached)


def test_apply_twice(pipe: Any, compiled_for: CompiledFor) -> None:
    document = compiled_for(pipe)
    handle = arm(pipe, document)
    before = snapshot(pipe)
    with pytest.raises(CacheConflict):
        arm(pipe, document)
    assert snapshot(pipe) == before
    handle.remove()
    arm(pipe, document).remove()


def test_one_scheduler_for_two_pipelines(wan: Any, compiled_for: CompiledFor) -> None:
    other = copy.deepcopy(wan)
    other.scheduler = wan.scheduler
    arm(wan, compiled_for(wan))
    with pytest.raises(CacheConflict, match="this scheduler already"):
        arm(other, compiled_for(other))
    assert type(other.transformer.blocks) is torch.nn.ModuleList


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_copy_is_a_plain_pipeline(pipe: Any, run: Run, compiled_for: CompiledFor, payload: str) -> None:
    expected, document = run(pipe), compiled_for(pipe, payload=payload)
    handle = arm(pipe, document)
    cached = run(pipe)
    other = copy.deepcopy(pipe)
    again = pickle.loads(pickle.dumps(pipe.transformer))
    handle.remove()
    assert torch.equal(run(other), expected)
    assert not any(
        isinstance(module, SpanList) for module in (*other.transformer.modules(), *again.modules())
    )
    with applied_quietly(other, document):
        assert torch.equal(run(other), cached)


def test_saving_an_armed_pipeline(wan: Any, run: Run, compiled_for: CompiledFor, tmp_path: Any) -> None:
    full = run(wan)
    arm(wan, compiled_for(wan))
    wan.save_pretrained(tmp_path)
    loaded = type(wan).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.scheduler) is type(wan.scheduler)
    torch.testing.assert_close(run(loaded), full, rtol=1e-4, atol=1e-4)


# Other caches, offloading, compilation -------------------------------------------------------------------


def first_block_cache() -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=0.1)


def test_another_cache_before(pipe: Any, compiled_for: CompiledFor) -> None:
    document = compiled_for(pipe)
    pipe.transformer.enable_cache(first_block_cache())
    with pytest.raises(CacheConflict, match=r"another cache is enabled on .* \(FirstBlockCacheConfig\)"):
        arm(pipe, document)
    pipe.transformer.disable_cache()
    arm(pipe, document)


def test_another_cache_while_armed(pipe: Any, run: Run, compiled_for: CompiledFor) -> None:
    from diffusers.hooks import apply_first_block_cache

    handle = arm(pipe, compiled_for(pipe))
    expected = run(pipe)
    with pytest.raises(CacheConflict, match="FirstBlockCacheConfig: a policy is applied"):
        pipe.transformer.enable_cache(first_block_cache())
    assert torch.equal(run(pipe), expected)
    apply_first_block_cache(pipe.transformer, first_block_cache())
    with pytest.raises(CacheConflict, match="the hook fbc_leader_block_hook is registered"):
        run(pipe)
    handle.remove()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
def test_group_offloading(pipe: Any, run: Run, compiled_for: CompiledFor, level: str, when: str) -> None:
    document = compiled_for(pipe)
    with applied_quietly(pipe, document):
        expected = run(pipe)

    def offload() -> None:
        groups = {"num_blocks_per_group": 1} if level == "block_level" else {}
        pipe.transformer.enable_group_offload(
            onload_device=torch.device("cpu"),
            offload_device=torch.device("cpu"),
            offload_type=level,
            **groups,
        )

    if when == "before":
        offload()
    handle = arm(pipe, document)
    if when == "after":
        offload()
    assert torch.equal(run(pipe), expected)
    handle.remove()
    assert not any(isinstance(module, SpanList) for module in pipe.transformer.modules())


@pytest.mark.parametrize("when", ["before", "after"])
def test_whole_model_offload_hooks(wan: Any, run: Run, compiled_for: CompiledFor, when: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    document = compiled_for(wan)
    with applied_quietly(wan, document):
        expected = run(wan)

    def offload() -> Any:
        return accelerate.cpu_offload_with_hook(wan.transformer, execution_device="cpu")[1]

    if when == "before":
        offload()
    handle = arm(wan, document)
    if when == "after":
        offload()
    assert torch.equal(run(wan), expected)
    handle.remove()
    accelerate.hooks.remove_hook_from_module(wan.transformer)
    assert type(wan.transformer.blocks) is torch.nn.ModuleList
    run(wan)


@pytest.mark.parametrize(
    ("family", "how"), [("wan", "method before"), ("wan", "wrapper after"), ("flux", "wrapper before")]
)
def test_two_compiled_graphs_for_all_steps(
    family: str, how: str, run: Run, compiled_for: CompiledFor, request: pytest.FixtureRequest
) -> None:
    pipe = request.getfixturevalue(family)
    for name in ("blocks", "transformer_blocks", "single_transformer_blocks"):
        if hasattr(pipe.transformer, name):
            setattr(pipe.transformer, name, getattr(pipe.transformer, name)[:1])
    document = compiled_for(pipe)
    with applied_quietly(pipe, document):
        expected = run(pipe)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    if how == "method before":
        pipe.transformer.compile(backend=counter, fullgraph=True)
    if how == "wrapper before":
        pipe.transformer = torch.compile(pipe.transformer, backend=counter, fullgraph=True)
    handle = arm(pipe, document)
    if how == "wrapper after":
        pipe.transformer = torch.compile(pipe.transformer, backend=counter, fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(run(pipe), expected, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 2
    handle.remove()


def applied_quietly(pipe: Any, document: PolicyDocument, **options: Any) -> Any:
    """`applied` without the warning that a bare document is not signed."""
    import contextlib

    @contextlib.contextmanager
    def context() -> Any:
        handle = arm(pipe, document, **options)
        try:
            yield handle
        finally:
            handle.remove()

    return context()


def test_applied_removes_on_the_way_out_of_an_exception(wan: Any, compiled_for: CompiledFor) -> None:
    before = snapshot(wan)
    with pytest.raises(ValueError, match="stop"), pytest.warns(UnsignedWarning):  # noqa: SIM117
        with applied(wan, compiled_for(wan), allow_unsigned=True):
            raise ValueError("stop")
    assert snapshot(wan) == before
