"""Several sizes of one policy: searched on the first, fitted to and measured on each, and run at each."""

from typing import Any

import pytest
from msgspec.structs import replace

from budc.compiler.compile import compile_artifacts
from budc.compiler.policy_source import make_request
from budc.compiler.selection.effort import EFFORTS, PerBudget
from budc.compiler.shapes import OutputSize, parse_sizes
from budc.policies.profile import load_profile
from budc.schema.errors import UnsupportedModel, UsageError

WAN, FLUX = load_profile("wan2.1-nano"), load_profile("flux-nano")


def test_a_size_has_the_profile_s_frames_where_it_names_none():
    assert parse_sizes(["480x832", "64x48x5"], WAN) == (OutputSize(480, 832, 9), OutputSize(64, 48, 5))
    assert parse_sizes(["64x48"], FLUX) == (OutputSize(64, 48, 1),)
    assert OutputSize(64, 48, 5).of(WAN).width == 48


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["64"], "--shape: '64' is no size"),
        (["64x0"], "--shape: '64x0' is no size"),
        (["64x64x5x1"], "is no size"),
        (["64x64", "64x64x9"], "--shape: 64x64x9 is there twice"),
        ([f"{16 * k}x16" for k in range(1, 20)], "--shape: 19 sizes, at most 17"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_sizes_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        parse_sizes(texts, WAN)


def test_what_contradicts_the_sizes_is_refused():
    def resolved(**fields):
        return make_request({}, {"model": "wan2.1-nano", "budget": "4", **fields}).resolve()

    with pytest.raises(UsageError, match="--height: --shape says this too"):
        resolved(shape=("64x64",), height=64)
    with pytest.raises(UnsupportedModel, match="height 70 is no multiple of 16"):
        resolved(shape=("64x64", "70x64"))
    with pytest.raises(UsageError, match="--shape: flux-nano makes images"):
        make_request({}, {"model": "flux-nano", "budget": "4", "shape": ("64x64x5",)}).resolve()
    plan = resolved(shape=("32x48x5", "64x64"))
    assert (plan.target.profile.width, plan.further_sizes) == (48, (OutputSize(64, 64, 9),))


def latents(pipe: Any, size: OutputSize) -> Any:
    import torch

    pipe.set_progress_bar_config(disable=True)
    length = (
        {"num_frames": size.frames, "max_sequence_length": 32}
        if size.frames > 1
        else {"max_sequence_length": 8}
    )
    return pipe(
        "a red box",
        height=size.height,
        width=size.width,
        num_inference_steps=6,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        return_dict=False,
        **length,
    )[0]


@pytest.fixture(params=["wan", pytest.param("flux", marks=pytest.mark.slow)])
def flags(request, prompt_file, tmp_path):
    """A compile for two sizes of a small model, of a given mask with fitted coefficients."""
    if request.param == "wan":
        held_out = tmp_path / "held-out.txt"
        held_out.write_text("a tiny green dot sails right over stripes\n")
        own = {"model": "wan2.1-nano", "calibration": prompt_file, "held_out": held_out}
        own |= {"shape": ("32x48x5", "32x32x5")}
    else:
        own = {"model": request.getfixturevalue("flux_profile"), "shape": ("32x48", "48x48")}
    folder = request.getfixturevalue(f"{request.param}_folder")
    common = {"weights": folder, "steps": 6, "mask": "#.##..", "fit": True, "out": tmp_path / "x.budc.json"}
    return own | common


@pytest.mark.filterwarnings("ignore:.*is not signed")
def test_each_size_is_measured_and_run_with_its_own_sigmas_and_predictors(flags):
    import torch

    import budc

    (artifact,) = compile_artifacts(make_request({}, flags).resolve())
    document = artifact.document
    (further,) = document.further_shapes
    assert [baseline.name for baseline in further.quality.baselines] == ["uniform", "fewer-steps", "full"]
    assert further.quality.metrics != document.quality.metrics
    assert further.quality.held_out == document.quality.held_out
    # FLUX shifts its schedule by size.
    assert (further.sigmas is not None) == (document.model.pipeline_class == "FluxPipeline")
    pipe = budc.load_pipeline(flags["model"], weights=flags["weights"])
    size = OutputSize(further.height, further.width, further.frames)
    with budc.applied(pipe, artifact.path, allow_unsigned=True) as applied:
        run = latents(pipe, size)
        assert applied.uncalibrated == ()
    alone = replace(
        document.of_size(size.frames, size.height, size.width),
        shape=replace(document.shape, **size._asdict()),
        further_shapes=[],
    )
    with budc.applied(pipe, alone, allow_unsigned=True):
        assert torch.equal(latents(pipe, size), run)


def test_policies_of_a_sweep_are_fitted_to_a_size_on_the_same_prompts(eight_prompts, tmp_path, monkeypatch):
    """Where a smaller budget would take fewer prompts, its full runs were taken for those of the larger one."""
    fewer = replace(EFFORTS["fast"], screen=PerBudget({1: 2}), fit=PerBudget({1: 8, 3: 24}))
    monkeypatch.setattr("budc.compiler.selection.effort.EFFORTS", {**EFFORTS, "fast": fewer})
    size = {"height": None, "width": None, "frames": None, "shape": ("32x48x5", "32x32x5")}
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a small red circle {side}\n" for side in "abcdefghijklmnop"))
    asked = eight_prompts | size | {"search": "dp", "no_frames": True, "calibration": prompts}

    def compiled(name, **budget):
        (tmp_path / name).mkdir()
        out = tmp_path / name if "sweep" in budget else tmp_path / name / "policy.budc.json"
        return compile_artifacts(make_request({}, asked | budget | {"out": out}).resolve())[-1].document

    alone, swept = compiled("alone", budget="2"), compiled("swept", sweep="1,2")
    assert swept.budget == alone.budget
    assert swept.search.settings["fit"] == alone.search.settings["fit"] == 16
    assert swept.further_shapes == alone.further_shapes
