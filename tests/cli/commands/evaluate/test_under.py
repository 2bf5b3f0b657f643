"""Other settings that `budc evaluate` measures under, and those that it refuses."""

import pytest
from lora import write_lora

pytest.importorskip("torch")


from budc.schema.artifact import read


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--against", "teacahe"),
            "--against: 'teacahe' is no method that is known here\n  try: did you mean teacache?",
        ),
        (("--under", "steps=4"), "a policy says of each of its steps whether it is computed"),
        (("--under", "scheduler=heun"), "--under: scheduler=heun: 'heun' is no solver"),
        (("--under", "size=big"), "'big' is no size"),
        (("--under", "size=33x48"), "height 33 is no multiple of 4"),
        (("--under", "guidance=4", "--under", "guidance=4"), "guidance=4 is there twice"),
        (("--under", "negative=dark"), "has no negative prompt"),
        (("--under", "lora=none.safetensors"), "none.safetensors"),
        (("--metrics", "psrn"), "did you mean psnr?"),
        (("--no-frames", "--metrics", "psnr"), "--no-frames: --metrics needs frames"),
        (("--no-frames", "--metric-weights", "."), "--no-frames: --metric-weights needs frames"),
        (("--no-frames", "--keep-frames"), "--no-frames: --keep-frames needs frames"),
        (("--metric-weights", "nowhere"), "--metric-weights: nowhere is no folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(
    evaluate, compiled, flux_profile, flags, said
):
    outcome = evaluate(compiled(flux_profile), *flags)
    assert said in outcome.err
    # The sizes that a model can make, and the adapter's file, are looked up in its folder.
    assert outcome.code == {"height": 34, "none.s": 31}.get(said[:6], 2), outcome.err


def test_policies_of_two_settings_are_refused(evaluate, compiled, flux_profile):
    first, second = (
        compiled(flux_profile, "--name", "a"),
        compiled(flux_profile, "--name", "b", "--guidance", "2"),
    )
    outcome = evaluate(first, second)
    assert outcome.code == 2
    assert "b was calibrated with another guidance than a: 2.0, not" in outcome.err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_policy_with_adapters_is_measured_with_them_and_under_others(
    evaluate, compiled, flux_profile, flux_folder, tmp_path
):
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel.from_pretrained(flux_folder, subfolder="transformer")
    style = write_lora(tmp_path / "style.safetensors", transformer)
    other = write_lora(tmp_path / "other.safetensors", transformer, seed=1)
    given = ("--lora", f"{style}:0.5")
    path = compiled(flux_profile, *given)
    flags = (path, "--no-frames", "--repeats", "0", "--against", "none")
    unders = ("lora=" + str(other), f"lora={style}:0.2", "guidance=2", "scheduler=dpm")
    outcome = evaluate(*flags, *given, *(text for under in unders for text in ("--under", under)), "--json")
    assert outcome.code == 0, outcome.err
    means = {
        item["name"]: {method["name"]: method["metrics"][0]["mean"] for method in item["methods"]}
        for item in outcome.record[0]["settings"]
    }
    assert list(means) == ["calibrated", *unders]
    assert means["calibrated"]["policy"] == read(path).document.quality.metrics[0].mean
    assert all(mean["full"] == 0 < mean["policy"] for mean in means.values())
    assert len({mean["policy"] for mean in means.values()}) == 5
    for refused, code, said in (
        ((), 2, "--lora: the policy was calibrated with style at scale 0.5"),
        (("--lora", f"{other}:0.5"), 41, "which is none of those given"),
    ):
        outcome = evaluate(*flags, *refused)
        assert (outcome.code, said in outcome.err) == (code, True), outcome.err


@pytest.mark.slow
def test_guidance_and_a_negative_prompt_of_a_wan_change_every_method(budc, wan_folder, tmp_path):
    path, model = tmp_path / "policy.budc.json", ("--weights", wan_folder)
    size = ("--height", "32", "--width", "32", "--frames", "5", "--held-out-size", "2")
    outcome = budc(
        *("compile", "--model", "wan2.1-nano", *model, "--steps", "4", "--mask", "#.#.", *size),
        *("--calibration-size", "2", "--no-frames", "--out", path),
    )
    assert outcome.code == 0, outcome.err
    unders = ("guidance=2", "negative=a red box", "negative=", "scheduler=euler", "frames=1", "size=32x48")
    outcome = budc(
        *("evaluate", path, "--allow-unsigned", *model, "--out", tmp_path, "--samples", "2", "--no-frames"),
        *("--repeats", "0", "--json", *(text for under in unders for text in ("--under", under))),
    )
    assert outcome.code == 0, outcome.err
    settings = outcome.record[0]["settings"]
    assert [item["name"] for item in settings] == ["calibrated", *unders]
    means = [
        {method["name"]: method["metrics"][0]["mean"] for method in item["methods"]} for item in settings
    ]
    assert all(mean["full"] == 0 < mean["policy"] for mean in means)
    # Nothing but an empty negative prompt may be what the model is deployed with.
    assert len({mean["policy"] for mean in means}) >= 6
    prompts = {item["name"]: item["prompts"]["digest"] for item in settings}
    assert prompts["negative=a red box"] not in (prompts["calibrated"], prompts["guidance=2"])
    assert prompts["guidance=2"] == prompts["calibrated"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_change_under_which_denoisers_take_over_at_other_steps_is_refused(
    budc, pair_profile, pair_folder, tmp_path
):
    path, model = tmp_path / "pair.budc.json", ("--weights", pair_folder)
    made = budc(
        *("compile", "--model", pair_profile, "--steps", "5", "--mask", "#.##.", *model, "--out", path),
        "--no-frames",
    )
    assert made.code == 0, made.err
    given = ("evaluate", path, "--allow-unsigned", *model, "--out", tmp_path, "--repeats", "0", "--no-frames")
    outcome = budc(*given, "--against", "none", "--under", "scheduler=dpm", "--under", "guidance=2")
    assert outcome.code == 0, outcome.err
    outcome = budc(*given, "--under", "scheduler=euler")
    assert outcome.code == 41
    said = (
        "--under: scheduler=euler: denoisers take over at step 2 there, and at step 3 where the policies were"
    )
    assert said in outcome.err
    assert "compile a policy for that setting" in outcome.err
