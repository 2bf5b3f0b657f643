"""Applying and removing a policy: nothing of it stays, and other patches of a pipeline are told from its own."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy, applied  # noqa: E402
from budc.runtimes.sampling.span import SpanList  # noqa: E402
from budc.schema.errors import CacheConflict  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
ApplyQuietly = Callable[..., AppliedPolicy]
AppliedQuietly = Callable[..., AbstractContextManager[AppliedPolicy]]

STEPS = 6
PAYLOADS = ["trunk-residual", "velocity"]


def snapshot(pipe: Any) -> list[dict[str, Any]]:
    modules = [dict(vars(module)) for module in pipe.transformer.modules()]
    hooks = [
        {"hooks": [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]}
        for module in pipe.transformer.modules()
    ]
    kinds = [{"kind": type(module)} for module in pipe.transformer.modules()]
    kinds.append({"kind": type(pipe)})
    return [dict(vars(pipe)), dict(vars(pipe.scheduler)), *modules, *hooks, *kinds]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_remove_undoes_everything(
    pipe: Any, compiled_for: CompiledFor, payload: str, apply_quietly: ApplyQuietly
) -> None:
    document = compiled_for(pipe, payload=payload)
    before = snapshot(pipe)
    applied_policy = apply_quietly(pipe, document)
    assert snapshot(pipe) != before
    applied_policy.remove()
    assert snapshot(pipe) == before
    applied_policy.remove()
    assert snapshot(pipe) == before


def test_removed_after_runs(
    pipe: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly
) -> None:
    document = compiled_for(pipe)
    expected = run(pipe)
    with applied_quietly(pipe, document):
        run(pipe)
    assert torch.equal(run(pipe), expected)
    assert "set_timesteps" not in vars(pipe.scheduler)
    assert "cache_context" not in vars(pipe.transformer)


def test_nothing_holds_the_pipeline_after_remove(
    wan: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    other = copy.deepcopy(wan)
    apply_quietly(other, compiled_for(other)).remove()
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_two_pipelines_of_one_class(
    pipe: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly
) -> None:
    other = copy.deepcopy(pipe)
    expected = run(other)
    with applied_quietly(pipe, compiled_for(pipe)):
        cached = run(pipe)
        assert torch.equal(run(other), expected)
        with applied_quietly(other, compiled_for(other, [True] * STEPS, [[]] * STEPS)):
            assert torch.equal(run(other), expected)
            assert torch.equal(run(pipe), cached)


def test_apply_twice(pipe: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly) -> None:
    document = compiled_for(pipe)
    applied_policy = apply_quietly(pipe, document)
    before = snapshot(pipe)
    with pytest.raises(CacheConflict):
        apply_quietly(pipe, document)
    assert snapshot(pipe) == before
    applied_policy.remove()
    apply_quietly(pipe, document).remove()


def test_one_scheduler_for_two_pipelines(
    wan: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    other = copy.deepcopy(wan)
    other.scheduler = wan.scheduler
    apply_quietly(wan, compiled_for(wan))
    with pytest.raises(CacheConflict, match="this scheduler already"):
        apply_quietly(other, compiled_for(other))
    assert type(other.transformer.blocks) is torch.nn.ModuleList


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_copy_is_a_plain_pipeline(
    pipe: Any,
    run: Run,
    compiled_for: CompiledFor,
    payload: str,
    apply_quietly: ApplyQuietly,
    applied_quietly: AppliedQuietly,
) -> None:
    expected, document = run(pipe), compiled_for(pipe, payload=payload)
    applied_policy = apply_quietly(pipe, document)
    cached = run(pipe)
    other = copy.deepcopy(pipe)
    again = pickle.loads(pickle.dumps(pipe.transformer))
    applied_policy.remove()
    assert torch.equal(run(other), expected)
    assert not any(
        isinstance(module, SpanList) for module in (*other.transformer.modules(), *again.modules())
    )
    with applied_quietly(other, document):
        assert torch.equal(run(other), cached)


def test_saving_a_pipeline_under_a_policy(
    wan: Any, run: Run, compiled_for: CompiledFor, tmp_path: Any, apply_quietly: ApplyQuietly
) -> None:
    full = run(wan)
    apply_quietly(wan, compiled_for(wan))
    wan.save_pretrained(tmp_path)
    loaded = type(wan).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.scheduler) is type(wan.scheduler)
    torch.testing.assert_close(run(loaded), full, rtol=1e-4, atol=1e-4)


# Other caches, offloading, compilation -------------------------------------------------------------------


def first_block_cache() -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=0.1)


def test_another_cache_before(pipe: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly) -> None:
    document = compiled_for(pipe)
    pipe.transformer.enable_cache(first_block_cache())
    with pytest.raises(CacheConflict, match=r"another cache is enabled on .* \(FirstBlockCacheConfig\)"):
        apply_quietly(pipe, document)
    pipe.transformer.disable_cache()
    before = snapshot(pipe)
    apply_quietly(pipe, document).remove()
    assert snapshot(pipe) == before


def test_diffusers_knows_that_a_cache_is_enabled(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    transformer = pipe.transformer
    assert not transformer.is_cache_enabled
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    assert transformer.is_cache_enabled
    with pytest.raises(CacheConflict, match="the cache of this transformer is the policy tiny") as refused:
        transformer.disable_cache()
    assert "call `.remove()`" in refused.value.remedy
    assert torch.equal(run(pipe), expected)
    for plain in (copy.deepcopy(transformer), pickle.loads(pickle.dumps(transformer))):
        assert not plain.is_cache_enabled
        plain.enable_cache(first_block_cache())
        plain.disable_cache()
    applied_policy.remove()
    assert not transformer.is_cache_enabled


def test_two_policies_on_one_transformer(
    pipe: Any, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    document = compiled_for(pipe)
    other = type(pipe)(**(pipe.components | {"scheduler": copy.deepcopy(pipe.scheduler)}))
    applied_policy = apply_quietly(pipe, document)
    with pytest.raises(CacheConflict, match=r"the policy tiny is applied to this .* already"):
        apply_quietly(other, document)
    applied_policy.remove()
    apply_quietly(other, document)


def test_a_cache_that_replaces_the_marker_is_refused_in_a_run_and_stays(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    config = first_block_cache()
    pipe.transformer._cache_config = config
    with pytest.raises(CacheConflict, match="another cache is enabled"):
        run(pipe)
    applied_policy.remove()
    assert pipe.transformer._cache_config is config


def test_another_cache_while_a_policy_is_applied(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    from diffusers.hooks import apply_first_block_cache

    applied_policy = apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    with pytest.raises(CacheConflict, match="FirstBlockCacheConfig: a policy is applied") as refused:
        pipe.transformer.enable_cache(first_block_cache())
    assert "call `.remove()`" in refused.value.remedy
    assert torch.equal(run(pipe), expected)
    apply_first_block_cache(pipe.transformer, first_block_cache())
    with pytest.raises(CacheConflict, match="the hook fbc_leader_block_hook is registered"):
        run(pipe)
    applied_policy.remove()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
def test_group_offloading(
    pipe: Any,
    run: Run,
    compiled_for: CompiledFor,
    level: str,
    when: str,
    apply_quietly: ApplyQuietly,
    applied_quietly: AppliedQuietly,
) -> None:
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
    applied_policy = apply_quietly(pipe, document)
    if when == "after":
        offload()
    assert torch.equal(run(pipe), expected)
    applied_policy.remove()
    assert not any(isinstance(module, SpanList) for module in pipe.transformer.modules())


@pytest.mark.parametrize("when", ["before", "after"])
def test_whole_model_offload_hooks(
    wan: Any,
    run: Run,
    compiled_for: CompiledFor,
    when: str,
    apply_quietly: ApplyQuietly,
    applied_quietly: AppliedQuietly,
) -> None:
    accelerate = pytest.importorskip("accelerate")
    document = compiled_for(wan)
    with applied_quietly(wan, document):
        expected = run(wan)

    def offload() -> Any:
        return accelerate.cpu_offload_with_hook(wan.transformer, execution_device="cpu")[1]

    if when == "before":
        offload()
    applied_policy = apply_quietly(wan, document)
    if when == "after":
        offload()
    assert torch.equal(run(wan), expected)
    applied_policy.remove()
    accelerate.hooks.remove_hook_from_module(wan.transformer)
    assert type(wan.transformer.blocks) is torch.nn.ModuleList
    run(wan)


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("wan", "wrapper after"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("wan", "method before"), ("flux", "wrapper before"))
        ),
    ],
)
def test_two_compiled_graphs_for_all_steps(
    family: str,
    how: str,
    run: Run,
    compiled_for: CompiledFor,
    request: pytest.FixtureRequest,
    apply_quietly: ApplyQuietly,
    applied_quietly: AppliedQuietly,
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
    applied_policy = apply_quietly(pipe, document)
    if how == "wrapper after":
        pipe.transformer = torch.compile(pipe.transformer, backend=counter, fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(run(pipe), expected, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 2
    applied_policy.remove()


def test_applied_removes_on_the_way_out_of_an_exception(wan: Any, compiled_for: CompiledFor) -> None:
    before = snapshot(wan)
    with pytest.raises(ValueError, match="stop"), pytest.warns(UnsignedWarning):  # noqa: SIM117
        with applied(wan, compiled_for(wan), allow_unsigned=True):
            raise ValueError("stop")
    assert snapshot(wan) == before
