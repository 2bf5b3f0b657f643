"""Z-Image, Qwen-Image and HunyuanVideo pipelines under a policy, on tiny random transformers."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning  # noqa: E402
from budc.runtimes.admission.trust import TrustedPolicy  # noqa: E402
from budc.runtimes.diffusers.applied import AppliedPolicy  # noqa: E402
from budc.runtimes.sampling.families import FAMILIES, family_of  # noqa: E402
from budc.runtimes.sampling.schedulers import default_schedule, passed_sigmas, sampler_binding  # noqa: E402
from budc.runtimes.sampling.trunk import Trunk  # noqa: E402
from budc.schema.errors import CalibrationMismatch, RefusedRun  # noqa: E402
from budc.schema.policy import BranchPolicy, PolicyDocument  # noqa: E402

MASK = (True, False, True, True, False, False)
PREDICTOR = ((), (1.0,), (), (), (1.5, -0.5), (1.0,))


def _randomised(transformer: Any) -> Any:
    torch.manual_seed(0)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, float(parameter.ndim == 1), 0.1)
    return transformer.eval()


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        n_layers=2, n_refiner_layers=1, dim=32, n_heads=2, n_kv_heads=2, cap_feat_dim=16, in_channels=4,
        axes_dims=[4, 6, 6], axes_lens=[128, 64, 64],
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = diffusers.ZImagePipeline(scheduler, None, None, None, _randomised(transformer))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: Any, guidance: float = 4.0, steps: int = 6, batch: int = 1, **options: Any) -> Any:
    text = torch.Generator().manual_seed(1)
    embeds = [torch.randn(5 + index, 16, generator=text) for index in range(batch)]
    return pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=[torch.randn(3, 16, generator=text) for _ in embeds],
        height=32,
        width=48,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        return_dict=False,
        **options,
    )[0]


@pytest.fixture
def document(compiled_for: Callable[..., PolicyDocument]) -> Callable[..., PolicyDocument]:
    from msgspec.structs import replace

    def make(pipe: Any, guidance: float, mask: Any = MASK, predictor: Any = PREDICTOR) -> PolicyDocument:
        names = ["cond", "uncond"] if guidance else ["cond"]
        base = compiled_for(pipe, mask, predictor, branches=[BranchPolicy.of(names, predictor)])
        rule = "classifier-free" if guidance else "none"
        sampler = replace(base.sampler, guidance=guidance, guidance_rule=rule)
        return replace(base, sampler=sampler, shape=replace(base.shape, height=32, width=48))

    return make


def applied(pipe: Any, document: PolicyDocument) -> AppliedPolicy:
    applied_policy = AppliedPolicy(pipe, {document.budget.nfe: TrustedPolicy(document)}, SettingsCheck())
    applied_policy.install()
    return applied_policy


def counted(pipe: Any) -> list[int]:
    calls: list[int] = []
    pipe.transformer.layers[0].register_forward_hook(lambda module, args, out: calls.append(len(out)))
    return calls


@pytest.mark.parametrize(("guidance", "batch"), [(0.0, 1), (0.0, 2), (4.0, 1), (4.0, 2)])
def test_a_pipeline_without_branch_names_is_driven_step_by_step(
    document: Any, guidance: float, batch: int
) -> None:
    pipe = z_image()
    expected = run(pipe, guidance, batch=batch)
    full = document(pipe, guidance, (True,) * 6, ((),) * 6)
    applied_policy = applied(pipe, full)
    assert torch.equal(run(pipe, guidance, batch=batch), expected)
    applied_policy.remove()
    calls = counted(pipe)
    applied_policy = applied(pipe, document(pipe, guidance))
    first, again = run(pipe, guidance, batch=batch), run(pipe, guidance, batch=batch)
    applied_policy.remove()
    # Three computed steps a run, the guided pair in one forward.
    assert calls == [batch * (2 if guidance else 1)] * 6
    assert torch.equal(first, again)
    assert not torch.allclose(first, expected)
    assert torch.equal(run(pipe, guidance, batch=batch), expected)


def test_a_forward_of_another_pipeline_does_not_disturb_a_run_that_names_no_branches(document: Any) -> None:
    pipe = z_image()
    other = diffusers.ZImagePipeline(copy.deepcopy(pipe.scheduler), None, None, None, pipe.transformer)
    other.set_progress_bar_config(disable=True)
    plain = run(other)
    applied_policy = applied(pipe, document(pipe, 4.0))
    expected = run(pipe)
    assert torch.equal(run(other), plain)

    def disturb(_: Any, step: int, __: Any, tensors: Any) -> Any:
        # The forward of the next step is prepared already.
        if step == 2:
            with pytest.raises(RefusedRun, match="this ZImagePipeline shares its transformer"):
                run(other)
        return tensors

    assert torch.equal(run(pipe, callback_on_step_end=disturb), expected)
    applied_policy.remove()


def test_a_second_run_of_a_pipeline_that_checks_no_inputs_does_not_disturb_the_first(document: Any) -> None:
    pipe = z_image()
    applied_policy = applied(pipe, document(pipe, 4.0))
    expected = run(pipe)

    def begin(_: Any, step: int, __: Any, tensors: Any) -> Any:
        if step == 2:
            with pytest.raises(RefusedRun, match="begun in the same thread"):
                run(pipe, 9.0)
        return tensors

    assert torch.equal(run(pipe, callback_on_step_end=begin), expected)
    applied_policy.remove()


def test_a_transformer_without_diffusers_caches_is_put_back_exactly(document: Any) -> None:
    pipe = z_image()
    before = dict(vars(pipe.transformer))
    applied_policy = applied(pipe, document(pipe, 4.0))
    assert not hasattr(pipe.transformer, "is_cache_enabled")
    assert not hasattr(pipe.transformer, "_cache_config")
    applied_policy.remove()
    assert vars(pipe.transformer) == before


def test_reuse_is_what_the_trunk_makes_of_the_last_residual(document: Any) -> None:
    pipe = z_image()
    forwards = []
    with_policy = document(pipe, 4.0, (True, False, True, True, True, True), ((), (1.0,), (), (), (), ()))
    applied_policy = applied(pipe, with_policy)
    pipe.transformer.register_forward_hook(
        lambda module, args, kwargs, out: forwards.append((args, kwargs, out[0])), with_kwargs=True
    )
    run(pipe)
    applied_policy.remove()
    (first, options, _), (second, _, reused) = forwards[:2]
    names = ("x", "t", "cap_feats")
    trunk = Trunk(pipe.transformer)
    with torch.no_grad():
        _, residual = trunk.compute(**dict(zip(names, first, strict=True)))
        expected = trunk.reuse(residual, **dict(zip(names, second, strict=True)))
    assert options["return_dict"] is False
    assert torch.equal(torch.stack(reused), torch.stack(expected))


def test_guidance_that_changes_the_forward_is_refused(document: Any) -> None:
    pipe = z_image()
    applied_policy = applied(pipe, document(pipe, 0.0))
    with pytest.raises(
        CalibrationMismatch, match=r"guidance: the policy was calibrated for 0\.0, this run has 4\.0"
    ):
        run(pipe, 4.0)
    applied_policy.remove()


def test_another_size_is_refused(document: Any) -> None:
    from msgspec.structs import replace

    pipe = z_image()
    other = document(pipe, 4.0)
    applied_policy = applied(pipe, replace(other, shape=replace(other.shape, width=64)))
    with pytest.raises(CalibrationMismatch, match="width: the policy was calibrated for 64, this run has 48"):
        run(pipe)
    applied_policy.remove()


def test_separate_masks_cannot_be_followed_in_one_forward(document: Any) -> None:
    from msgspec.structs import replace

    pipe = z_image()
    shared_mask = document(pipe, 4.0)
    branches = [BranchPolicy.of(["cond"], PREDICTOR), BranchPolicy.of(["uncond"], [()] * 6)]
    policy = replace(shared_mask.policy, branches=branches)
    applied_policy = applied(pipe, replace(shared_mask, policy=policy))
    with pytest.raises(CalibrationMismatch, match="separate masks"):
        run(pipe)
    applied_policy.remove()


def test_batched_branches_may_have_coefficients_of_their_own(document: Any) -> None:
    from msgspec.structs import replace

    pipe = z_image()
    shared = document(pipe, 4.0, (True, False, True, True, True, True), ((), (1.0,), (), (), (), ()))
    branches = [
        BranchPolicy.of([name], [(), (weight,), *[()] * 4])
        for name, weight in (("cond", 1.0), ("uncond", 0.5))
    ]
    outputs = []
    pipe.transformer.register_forward_hook(lambda module, args, out: outputs.append(out[0]))
    for policy in (shared.policy, replace(shared.policy, branches=branches)):
        applied_policy = applied(pipe, replace(shared, policy=policy))
        run(pipe, batch=2)
        applied_policy.remove()
    # The first reused forward of both runs: conditional rows agree, unconditional ones do not.
    shared_rows, own_rows = (torch.stack(outputs[run * 6 + 1]) for run in (0, 1))
    assert torch.equal(shared_rows[:2], own_rows[:2])
    assert not torch.isclose(shared_rows[2:], own_rows[2:]).flatten(1).all(1).any()


def test_guidance_that_is_bent_or_ends_is_refused(document: Any) -> None:
    pipe = z_image()
    applied_policy = applied(pipe, document(pipe, 4.0))
    with pytest.raises(CalibrationMismatch, match=r"cfg_truncation: is 0\.5"):
        run(pipe, cfg_truncation=0.5)
    with pytest.raises(
        CalibrationMismatch, match=r"cfg_normalization: the policy was calibrated for 0\.0, this run has 1\.0"
    ):
        run(pipe, cfg_normalization=True)
    run(pipe, cfg_truncation=None)
    applied_policy.remove()


@pytest.mark.parametrize(("payload", "width"), [("trunk-residual", 32), ("velocity", 16)])
def test_what_is_cached_has_one_shape_for_every_prompt(payload: Any, width: int) -> None:
    trunk = Trunk(z_image().transformer, payload)
    latents = torch.randn(4, 1, 4, 10, generator=torch.Generator().manual_seed(0))
    for length in (5, 40):
        text = torch.randn(length, 16, generator=torch.Generator().manual_seed(length))
        inputs = {"x": [latents], "t": torch.tensor([0.5]), "cap_feats": [text]}
        with torch.no_grad():
            (velocity,), cached = trunk.compute(**inputs)
            (reused,) = trunk.reuse(cached, **inputs)
        torch.testing.assert_close(reused, velocity, rtol=1e-4, atol=1e-5)
        # 10 image tokens, padded to 32.
        assert cached.shape == (1, 32, width)


@pytest.mark.parametrize(
    "name", ["HunyuanVideoTransformer3DModel", "QwenImageTransformer2DModel", "ZImageTransformer2DModel"]
)
@pytest.mark.parametrize("steps", [8, 28, 50])
def test_what_the_pipelines_pass_is_known_to_the_last_bit(name: str, steps: int, compiled_for: Any) -> None:
    import numpy as np

    passed = {
        "HunyuanVideoTransformer3DModel": np.linspace(1.0, 0.0, steps + 1)[:-1],
        "QwenImageTransformer2DModel": np.linspace(1.0, 1 / steps, steps),
        "ZImageTransformer2DModel": torch.linspace(1.0, 1 / steps, steps).tolist(),
    }[name]
    assert [float(sigma) for sigma in passed] == passed_sigmas(steps, FAMILIES[name].sigmas)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=passed)
    sigmas, _ = default_schedule(scheduler, steps, family=FAMILIES[name])
    assert sigmas == scheduler.sigmas.tolist()


def qwen_image() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.QwenImageTransformer2DModel(
        num_layers=2, num_attention_heads=2, attention_head_dim=16, joint_attention_dim=16, in_channels=16,
        out_channels=4, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = diffusers.QwenImagePipeline(scheduler, None, None, None, _randomised(transformer))
    text = torch.Generator().manual_seed(1)
    return pipe, {
        "prompt_embeds": torch.randn(1, 5, 16, generator=text),
        "negative_prompt_embeds": torch.randn(1, 4, 16, generator=text),
        "true_cfg_scale": 4.0,
    }


def hunyuan_video() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        num_layers=1, num_single_layers=2, num_refiner_layers=1, num_attention_heads=2, attention_head_dim=16,
        text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6), in_channels=4, out_channels=4,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    pipe = diffusers.HunyuanVideoPipeline(None, None, _randomised(transformer), None, scheduler, None, None)
    text = torch.Generator().manual_seed(1)
    return pipe, {
        "prompt_embeds": torch.randn(1, 5, 16, generator=text),
        "pooled_prompt_embeds": torch.randn(1, 8, generator=text),
        "prompt_attention_mask": torch.ones(1, 5),
        "num_frames": 5,
        "guidance_scale": 6.0,
    }


DocumentFor = Callable[..., PolicyDocument]


@pytest.fixture
def named(compiled_for: DocumentFor) -> DocumentFor:
    """Make a document for one of these pipelines: (pipe, options, mask, predictor)."""
    from msgspec.structs import replace

    def document_for(
        pipe: Any, options: dict[str, Any], mask: Any = MASK, predictor: Any = PREDICTOR
    ) -> PolicyDocument:
        guided = "true_cfg_scale" in options
        names = ["cond", "uncond"] if guided else ["cond"]
        base = compiled_for(pipe, mask, predictor, branches=[BranchPolicy.of(names, predictor)])
        rule: Any
        rule, scale = ("classifier-free", 4.0) if guided else ("distilled", 6.0)
        shape = replace(base.shape, height=32, width=48, frames=options.get("num_frames", 1))
        # 32 × 48 pixels are 2 × 3 cells, which Qwen-Image's schedule is shifted for.
        sampler = sampler_binding(
            pipe.scheduler,
            len(mask),
            scale,
            family=family_of(pipe.transformer),
            guidance_rule=rule,
            image_tokens=6,
        )
        return replace(base, sampler=sampler, shape=shape)

    return document_for


def generate(pipe: Any, options: dict[str, Any]) -> Any:
    generator = torch.Generator().manual_seed(0)
    sizes = {"height": 32, "width": 48, "num_inference_steps": 6, "output_type": "latent"}
    pipe.set_progress_bar_config(disable=True)
    return pipe(**options, **sizes, generator=generator, return_dict=False)[0]


@pytest.mark.parametrize("build", [qwen_image, hunyuan_video])
def test_pipelines_that_name_their_branches(build: Any, named: DocumentFor) -> None:
    pipe, options = build()
    expected = generate(pipe, options)
    applied_policy = applied(pipe, named(pipe, options, (True,) * 6, ((),) * 6))
    assert torch.equal(generate(pipe, options), expected)
    applied_policy.remove()
    calls: list[int] = []
    pipe.transformer.transformer_blocks[0].register_forward_hook(lambda *_: calls.append(1))
    document = named(pipe, options)
    applied_policy = applied(pipe, document)
    latents = generate(pipe, options)
    assert applied_policy.uncalibrated == ()
    applied_policy.remove()
    assert len(calls) == 3 * sum(len(branch.names) for branch in document.policy.branches)
    assert not torch.allclose(latents, expected)
    assert torch.equal(generate(pipe, options), expected)


@pytest.mark.parametrize(
    "changed", [{"true_cfg_scale": 1.0}, {"negative_prompt_embeds": None}], ids=["scale", "negative prompt"]
)
def test_a_branch_that_the_pipeline_leaves_out_is_noticed_in_the_first_step(
    named: DocumentFor, changed: Any
) -> None:
    pipe, options = qwen_image()
    applied_policy = applied(pipe, named(pipe, options))
    with pytest.raises(
        CalibrationMismatch, match=r"branches: .*calibrated for cond, uncond, this run has cond"
    ):
        generate(pipe, options | changed)
    assert int(pipe.scheduler.step_index or 0) == 0
    generate(pipe, options)
    assert applied_policy.uncalibrated == ()


def test_a_branch_that_the_pipeline_leaves_out_may_be_allowed(named: DocumentFor) -> None:
    pipe, options = qwen_image()
    document = named(pipe, options)
    held = {document.budget.nfe: TrustedPolicy(document)}
    applied_policy = AppliedPolicy(pipe, held, SettingsCheck(allow=True))
    applied_policy.install()
    with pytest.warns(UncalibratedWarning, match="this run has cond$"):
        generate(pipe, options | {"true_cfg_scale": 1.0})
    assert applied_policy.uncalibrated == (
        "branches: the policy was calibrated for cond, uncond, this run has cond",
    )
