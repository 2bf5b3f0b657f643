"""Runs that a policy refuses, in a message that names the field and both values."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy  # noqa: E402
from budc.schema.errors import CalibrationMismatch, RefusedRun  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
ApplyQuietly = Callable[..., AppliedPolicy]
AppliedQuietly = Callable[..., contextlib.AbstractContextManager[AppliedPolicy]]

STEPS = 6


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
    applied_quietly: AppliedQuietly,
) -> None:
    pipe = request.getfixturevalue(family)
    document = compiled_for(pipe)
    with applied_quietly(pipe, document) as applied_policy:
        with pytest.raises(CalibrationMismatch, match=message):
            run(pipe, **options)
        run(pipe)
        assert applied_policy.uncalibrated == ()
    with applied_quietly(pipe, document, allow_uncalibrated=True) as applied_policy:
        with pytest.warns(UncalibratedWarning, match=message):
            run(pipe, **options)
        assert any(message in line for line in applied_policy.uncalibrated)
        run(pipe)
        assert applied_policy.uncalibrated == ()


def test_size_of_given_latents(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    with pytest.raises(CalibrationMismatch, match="height: the policy was calibrated for 16"):
        run(wan, latents=torch.randn(1, 16, 2, 4, 4))


def test_tokens_are_checked_where_sizes_are_not(
    wan: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
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


def test_text_length(wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly) -> None:
    apply_quietly(wan, compiled_for(wan, text_tokens=8))
    run(wan)
    with pytest.raises(CalibrationMismatch, match="text tokens: the policy was calibrated for 8, this"):
        run(wan, max_sequence_length=16)


def test_dtype(wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly) -> None:
    apply_quietly(wan, compiled_for(wan))
    wan.transformer.to(torch.bfloat16)
    with pytest.raises(CalibrationMismatch, match=r"dtype: .* for float32, this run has bfloat16"):
        run(wan)


def test_adapters(wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly) -> None:
    peft = pytest.importorskip("peft")
    apply_quietly(wan, compiled_for(wan))
    config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    plain = run(wan)
    wan.transformer.add_adapter(config, adapter_name="style")
    with pytest.raises(CalibrationMismatch, match=r"adapters: .* for none, this run has style"):
        run(wan)
    wan.transformer.disable_adapters()
    assert torch.equal(run(wan), plain)


def test_scheduler_settings(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    document = compiled_for(wan)
    wan.scheduler = type(wan.scheduler).from_config(wan.scheduler.config, flow_shift=5.0)
    with pytest.raises(
        CalibrationMismatch, match=r"scheduler\.flow_shift: .* for 3\.0, this run has 5\.0"
    ) as caught:
        apply_quietly(wan, document)
    assert "from_config(pipe.scheduler.config, flow_shift=3.0)" in caught.value.remedy


@pytest.mark.parametrize("how", ["replaced", "written to"])
def test_a_schedule_that_is_changed_during_a_run_is_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, how: str, apply_quietly: ApplyQuietly
) -> None:
    expected = run(copy.deepcopy(wan))
    applied_policy = apply_quietly(wan, compiled_for(wan))

    def change(pipe: Any, step: int, _timestep: Any, tensors: Any) -> Any:
        if step == 2 and how == "replaced":
            pipe.scheduler.sigmas = pipe.scheduler.sigmas.clone()
        elif step == 2:
            pipe.scheduler.sigmas[4] *= 1.01
        return tensors

    with pytest.raises(CalibrationMismatch, match="sigmas: the schedule was changed during the run"):
        run(wan, callback_on_step_end=change)
    applied_policy.remove()
    assert torch.equal(run(wan), expected)


def test_scheduler_exchanged_after_apply(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    wan.scheduler = type(wan.scheduler).from_config(wan.scheduler.config)
    with pytest.raises(CalibrationMismatch, match="scheduler: the policy was applied with UniPC"):
        run(wan)


def test_transformer_exchanged_after_apply(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    wan.transformer = copy.deepcopy(wan.transformer)
    with pytest.raises(RefusedRun, match="another one than the policy was applied to"):
        run(wan)


def test_block_list_exchanged_after_apply(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(wan, compiled_for(wan))
    wan.transformer.blocks = wan.transformer.blocks[:1]
    with pytest.raises(RefusedRun, match="block list was replaced"):
        run(wan)
    applied_policy.remove()


def test_guidance_of_another_kind(
    flux: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(flux, compiled_for(flux))
    negative = {
        "negative_prompt_embeds": torch.zeros(1, 5, 16),
        "negative_pooled_prompt_embeds": torch.zeros(1, 8),
    }
    with pytest.raises(CalibrationMismatch, match="the policy has cond, this run asks for uncond"):
        run(flux, true_cfg_scale=4.0, **negative)
    run(flux)


def test_a_pipeline_that_names_no_branch_is_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    # As pipelines do that never call `cache_context`.
    vars(wan.transformer)["cache_context"] = lambda name, **_: contextlib.nullcontext()
    with pytest.raises(CalibrationMismatch, match="has cond, uncond, WanPipeline does not say"):
        run(wan)


def test_a_split_batch_is_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    original = type(wan.transformer).forward

    def halves(**inputs: Any) -> Any:
        parts = [{k: v[i : i + 1] if torch.is_tensor(v) else v for k, v in inputs.items()} for i in range(2)]
        return (torch.cat([original(wan.transformer, **part)[0] for part in parts]),)

    wan.transformer.forward = halves
    apply_quietly(wan, compiled_for(wan))
    with pytest.raises(RefusedRun, match="ran twice in one step"):
        run(wan, batch=2)
