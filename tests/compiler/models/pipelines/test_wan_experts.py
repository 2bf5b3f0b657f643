"""Wan with two experts, end to end on a small random folder: what the compiler rolls out is what the pipeline makes."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import budc  # noqa: E402
from budc.compiler import transfer_request as transferring  # noqa: E402
from budc.compiler.compatibility import check_first_steps  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.evaluation.replay import ReplayRequest, replay  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.models.supported import check_supported  # noqa: E402
from budc.compiler.planning.estimate import estimate_compile  # noqa: E402
from budc.compiler.planning.forwards import CompileSettings  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.rollouts.policies import full_policy, shared_policy  # noqa: E402
from budc.compiler.selection.arbitration import Arbiter  # noqa: E402
from budc.compiler.transfer import transfer  # noqa: E402
from budc.compiler.transfer_request import TransferRequest  # noqa: E402
from budc.policies.costs import Cost  # noqa: E402
from budc.policies.profile import load_profile, read_prompts  # noqa: E402
from budc.policies.samples import HELD_OUT_SEED  # noqa: E402
from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.schema import semantics  # noqa: E402
from budc.schema.artifact import Artifact  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    BudgetImpossible,
    CalibrationMismatch,
    UnsupportedModel,
)
from budc.schema.mask import StepMask  # noqa: E402
from budc.schema.predictor import Predictor  # noqa: E402

pytestmark = pytest.mark.usefixtures("short_search")

BRANCHES = ("cond", "uncond")
NEGATIVE = load_profile("wan2.2").prompts.negative
FIRST = 3
"""The first step of the second denoiser: timesteps are 999, 961, 909, 833, 714, 500, the boundary is 875."""


@pytest.fixture
def model(pair_profile: str, pair_folder: Path) -> Any:
    return load_model(load_profile(pair_profile), pair_folder, torch.device("cpu"))


@pytest.fixture
def pipe(pair_folder: Path) -> Any:
    loaded = diffusers.WanPipeline.from_pretrained(pair_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def deployed(pipe: Any, prompt: str, seed: int, **options: Any) -> Any:
    settings = {
        "height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 6, "guidance_scale": 4.0,
        "guidance_scale_2": 3.0, "max_sequence_length": 8, "output_type": "latent",
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    return pipe(prompt=prompt, negative_prompt=NEGATIVE, generator=generator, **(settings | options)).frames


def rolled(model: Any, policy: Any, sampler: Any, prompt: str, seed: int) -> Any:
    return PipelineRollout(model).run(policy, sampler, encode_prompts(model, [prompt], [seed]))


Compile = Callable[..., Artifact]


@pytest.fixture
def compiled(pair_profile: str, pair_folder: Path, tmp_path: Path) -> Compile:
    def compiled(**fields: Any) -> Artifact:
        given = {"budget": "3", "weights": pair_folder, "search": "uniform", "out": tmp_path / "p.budc.json"}
        return compile_artifacts(CompileRequest(model=pair_profile, **(given | fields)).resolve())[0]

    return compiled


@pytest.fixture(scope="module")
def kept() -> list[Artifact]:
    return []


@pytest.fixture
def plain(compiled: Compile, kept: list[Artifact]) -> Artifact:
    """The uniform policy of three steps, compiled once."""
    if not kept:
        kept.append(compiled())
    return kept[0]


# What is rolled out is what runs -------------------------------------------------------------------------


def test_the_full_rollout_is_the_pipeline_bit_for_bit(model: Any, pipe: Any) -> None:
    sampler = model.sampler(6)
    (expert,) = sampler.experts
    assert (expert.denoiser, expert.first_step, expert.guidance) == ("transformer_2", FIRST, 3.0)
    for seed, prompt in enumerate(read_prompts("held-out.txt", 2)):
        latents = rolled(model, full_policy(6, BRANCHES), sampler, prompt, seed)
        assert torch.equal(latents, deployed(pipe, prompt, seed))
        assert not torch.equal(latents, deployed(pipe, prompt, seed, guidance_scale_2=4.0))


@pytest.mark.parametrize("search", ["uniform", pytest.param("joint", marks=pytest.mark.slow)])
def test_an_artifact_runs_as_it_was_rolled_out(compiled: Compile, model: Any, pipe: Any, search: str) -> None:
    artifact = compiled(search=search)
    document = artifact.document
    semantics.check(document)
    assert document.budget.nfe == 3
    assert all(branch.mask[0] and branch.mask[FIRST] for branch in document.policy.branches)
    names = [baseline.name for baseline in document.quality.baselines]
    assert names == ["uniform", "fewer-steps", "full"]
    prompt = read_prompts("held-out.txt", 2)[0]
    expected = rolled(model, document.policy, document.sampler, prompt, HELD_OUT_SEED)
    assert torch.equal(_run(pipe, artifact, prompt), expected)
    assert not torch.equal(expected, deployed(pipe, prompt, HELD_OUT_SEED))


def _run(pipe: Any, artifact: Any, prompt: str, steps: int = 6) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, artifact, allow_unsigned=True):
            return deployed(pipe, prompt, HELD_OUT_SEED, num_inference_steps=steps)


@pytest.mark.parametrize("payload", [pytest.param("trunk-residual", marks=pytest.mark.slow), "velocity"])
def test_a_cached_rollout_is_the_pipeline_with_the_policy_applied(
    plain: Artifact, model: Any, pipe: Any, payload: Any
) -> None:
    document = plain.document
    rows: list[Any] = [(), (1.1,), (), (), (), (1.5, -0.5)]
    mask = StepMask.of([not row for row in rows])
    policy = replace(shared_policy(mask, Predictor.of(rows, mask, [FIRST]), BRANCHES), payload=payload)
    document = replace(
        document,
        policy=policy,
        budget=replace(document.budget, nfe=4, branches={"cond": 4, "uncond": 4}),
        quality=replace(document.quality, baselines=[]),
    )
    semantics.check(document)
    prompt = read_prompts("held-out.txt", 2)[1]
    expected = rolled(model, policy, document.sampler, prompt, HELD_OUT_SEED)
    latents = _run(pipe, document, prompt)
    assert torch.equal(latents, expected)
    assert not torch.equal(
        latents, rolled(model, full_policy(6, BRANCHES), document.sampler, prompt, HELD_OUT_SEED)
    )


@pytest.mark.slow
def test_everything_at_once_keeps_the_split(
    compiled: Compile, model: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["budc.compiler.selection.alignment"], "epochs", lambda nfe, given: 2)
    # Sigmas move so far that only the pinned ones keep the split.
    monkeypatch.setattr(
        sys.modules["budc.compiler.selection.alignment"], "RATES", {"coefficients": 0.01, "sigmas": 0.5}
    )
    artifact = compiled(budget="4", search="joint", align=True, branches="separate", steps="auto")
    document = artifact.document
    semantics.check(document)
    (expert,) = document.sampler.experts
    boundary = 875
    below = [timestep < boundary for timestep in document.sampler.timesteps]
    assert below.index(True) == expert.first_step
    prompt = read_prompts("held-out.txt", 2)[0]
    expected = rolled(model, document.policy, document.sampler, prompt, HELD_OUT_SEED)
    assert torch.equal(_run(pipe, artifact, prompt, document.sampler.steps), expected)


def test_few_plain_steps_are_shared_where_both_denoisers_have_one(
    compiled: Compile, pipe: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are at 999, 909 and 714."""
    judged = Arbiter.loss

    def few_win(self: Any, label: str, *rest: Any) -> float:
        return -100.0 if "few steps" in label else judged(self, label, *rest)

    monkeypatch.setattr(Arbiter, "loss", few_win)
    artifact = compiled(search="dp", steps="auto")
    sampler = artifact.document.sampler
    assert (sampler.steps, sampler.first_steps) == (3, (2,))
    prompt = read_prompts("held-out.txt", 2)[0]
    expected = rolled(model, artifact.document.policy, sampler, prompt, HELD_OUT_SEED)
    assert torch.equal(_run(pipe, artifact, prompt, 3), expected)


def test_few_plain_steps_that_leave_a_denoiser_none_are_no_policy(
    compiled: Compile, pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from budc.compiler.selection import arbitration

    monkeypatch.setattr(arbitration, "full_policy", lambda *_: pytest.fail("not a candidate"))
    # With this shift both of two steps are above the boundary, and three of six are not.
    folder = tmp_path / "shifted"
    shutil.copytree(pair_folder, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"flow_shift": 8.0}))
    document = compiled(budget="2", search="dp", steps="auto", weights=folder).document
    assert document.sampler.steps == 6
    # As a baseline those two steps are what anyone could have, at the same cost.
    assert [b.name for b in document.quality.baselines] == ["uniform", "fewer-steps", "full"]


@pytest.mark.slow
def test_a_sweep(pair_profile: str, pair_folder: Path, tmp_path: Path) -> None:
    request = CompileRequest(model=pair_profile, budget="", sweep="2,6", weights=pair_folder, out=tmp_path)
    for nfe, artifact in zip((2, 6), compile_artifacts(request.resolve()), strict=True):
        semantics.check(artifact.document)
        assert artifact.document.budget.nfe == nfe
        (masks,) = {tuple(branch.mask) for branch in artifact.document.policy.branches}
        assert masks[0]
        assert masks[FIRST]


@pytest.mark.slow
def test_a_killed_compile_ends_with_the_same_payload(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import budc.compiler.storage.journal as journal

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    options: dict[str, Any] = {"search": "dp", "align": True, "out": tmp_path / "p.budc.json"}
    expected = compiled(**options | {"out": tmp_path / "undisturbed.budc.json"}).payload
    put, written = journal.Journal.put, list[str]()

    def stopping(self: Any, key: str, value: Any) -> None:
        put(self, key, value)
        written.append(key)
        if key.endswith("epoch 1"):
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        compiled(**options)
    assert len(written) > 4
    monkeypatch.setattr(journal.Journal, "put", put)
    assert compiled(**options).payload == expected


# What is refused -----------------------------------------------------------------------------------------


def test_a_budget_below_one_step_a_denoiser(compiled: Compile) -> None:
    said = (
        r"'1' is 1 evaluations, but a run of 6 steps has 2 to 6, and each of 2 denoisers computes its first"
    )
    with pytest.raises(BudgetImpossible, match=said):
        compiled(budget="1")
    assert compiled(budget="2", search="joint").document.policy.branches[0].step_mask().compute_steps == (
        0,
        FIRST,
    )


def test_a_folder_with_other_experts(
    compiled: Compile, pair_profile: str, pair_folder: Path, wan_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(pair_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"boundary_ratio": 0.9}))
    with pytest.raises(UnsupportedModel, match=r"boundary_ratio is 0.9, but pair-tiny has 0.875"):
        compiled(weights=folder)
    with pytest.raises(
        UnsupportedModel, match="transformer_2 is a None, but pair-tiny has a WanTransformer3DModel"
    ):
        load_model(load_profile(pair_profile), wan_folder, torch.device("cpu"))
    with pytest.raises(UnsupportedModel, match=r"boundary_ratio is 0.875, but wan2.1-nano has None"):
        load_model(load_profile("wan2.1-nano"), pair_folder, torch.device("cpu"))


def test_a_profile_that_does_not_say_when_its_denoisers_run() -> None:
    profile = load_profile("wan2.2")
    check_supported(profile)
    with pytest.raises(UnsupportedModel, match=r"2 denoisers \(transformer, transformer_2\), .* when 1 run"):
        check_supported(replace(profile, experts=None))
    single = load_profile("wan2.1")
    with pytest.raises(UnsupportedModel, match=r"1 denoisers \(transformer\), .* when 2 run"):
        check_supported(replace(single, experts=profile.experts))


# What else reads a policy --------------------------------------------------------------------------------


def test_a_report_is_measured_again(plain: Artifact, pair_folder: Path) -> None:
    document = plain.document
    replayed = replay(ReplayRequest(document, pair_folder))
    assert [pair.measured.mean for pair in replayed] == [metric.mean for metric in document.quality.metrics]
    # Another guidance of the second denoiser is another policy.
    (expert,) = document.sampler.experts
    other = replace(document, sampler=replace(document.sampler, experts=[replace(expert, guidance=9.0)]))
    with pytest.raises(Exception, match="the report says"):
        replay(ReplayRequest(other, pair_folder))


def test_a_policy_is_transferred_within_the_family_where_the_split_is_the_same(
    plain: Artifact, pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plain
    out = tmp_path / "moved.budc.json"
    request = TransferRequest(source=source, to="pair-tiny", weights=pair_folder, out=out)
    document = transfer(request.resolve()).document
    semantics.check(document)
    assert document.sampler == source.document.sampler
    for branch in BRANCHES:
        assert document.policy.for_branch(branch).mask == source.document.policy.for_branch(branch).mask
    assert document.policy != source.document.policy
    with pytest.raises(UnsupportedModel, match=r"is for 2 denoisers, wan2.1-nano has 1"):
        replace(request, to="wan2.1-nano", differing=True).resolve()
    profile = load_profile("pair-tiny")
    assert profile.experts is not None
    warmer = replace(profile, experts=replace(profile.experts, guidance=2.0))
    monkeypatch.setattr(transferring, "choose_model", lambda *_: warmer)
    with pytest.raises(
        CalibrationMismatch, match=r"guidance of transformer_2: the policy was found with 3.0, .* 2.0"
    ):
        request.resolve()
    (expert,) = source.document.sampler.experts
    moved = replace(source.document.sampler, experts=[replace(expert, first_step=2)])
    with pytest.raises(CalibrationMismatch, match=r"take over at step 2 under the policy, in pair-tiny at 3"):
        check_first_steps(replace(source.document, sampler=moved), profile, source.document.sampler)


def test_a_plan_counts_one_denoiser_s_weights_as_they_take_turns() -> None:
    profile = load_profile("wan2.2")
    cost = Cost(
        parameters=1,
        flops=4e12,
        reuse_flops=1e10,
        weights=10**9,
        one_block=10**7,
        residual=10**6,
        latents=10**4,
        activations=10**8,
    )
    for search in ("joint", "paper", "hillclimb", "anneal", "dp", "uniform"):
        plan = estimate_compile(CompileSettings(profile, (10,), 40, search), cost)
        assert plan.memory == 10**9 + 2 * 3 * 10**6 + 10**8
        single = estimate_compile(CompileSettings(load_profile("wan2.1-14b"), (10,), 40, search), cost)
        assert 0.5 < plan.stages["search"].expected / single.stages["search"].expected < 1.5
