"""`--proxy`: masks are searched at a smaller size, and tried with their neighbours at the real one."""

import pytest

from budc.compiler.policy_source import make_request
from budc.compiler.proxy import in_words, parse_proxy
from budc.compiler.shapes import OutputSize
from budc.policies.profile import load_profile
from budc.schema.errors import UnsupportedModel, UsageError

WAN, FLUX = load_profile("wan2.1-nano"), load_profile("flux-nano")


def test_what_a_proxy_does_not_name_is_as_it_is_at_the_real_size():
    assert parse_proxy("frames=5", WAN) == OutputSize(64, 64, 5)
    assert parse_proxy("size=32x48", WAN) == OutputSize(32, 48, 9)
    assert parse_proxy(" size=32x48 , frames=5", WAN) == OutputSize(32, 48, 5)
    assert parse_proxy("size=32x32", FLUX) == OutputSize(32, 32, 1)
    assert in_words(OutputSize(32, 48, 5)) == "32x48, 5 frames"
    assert in_words(OutputSize(32, 48, 1)) == "32x48"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--proxy: '' is no size of a proxy"),
        ("32x32", "--proxy: '32x32' is no size of a proxy"),
        ("fps=3", "--proxy: 'fps=3' is no size of a proxy"),
        ("frames=0", "--proxy: 'frames=0' is no size of a proxy"),
        ("size=32", "--proxy: 'size=32' is no size of a proxy"),
        ("frames=5,frames=1", "--proxy: 'frames=1' is there twice"),
        ("frames=9", "--proxy frames=9: 64x64, 9 frames, which is not smaller than the output"),
        (
            "frames=13",
            "--proxy frames=13: 64x64, 13 frames, which is not smaller than the output, 64x64, 9 frames",
        ),
        ("size=96x32", "which is not smaller than the output"),
    ],
)
def test_what_is_no_smaller_size_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_proxy(text, WAN)


@pytest.mark.parametrize(
    ("flags", "kind", "message"),
    [
        (
            {"proxy": "size=40x48"},
            UnsupportedModel,
            "--proxy: size 40x48, but wan2.1-nano makes multiples of 16",
        ),
        (
            {"proxy": "frames=4"},
            UnsupportedModel,
            "--proxy: 4 frames, but wan2.1-nano makes one and a multiple of 4",
        ),
        (
            {"model": "flux-nano", "proxy": "frames=1"},
            UsageError,
            "--proxy: frames are given, but flux-nano makes images",
        ),
        ({"search": "paper"}, UsageError, "--proxy: --search paper is a method to compare with"),
        ({"search": "uniform"}, UsageError, "--proxy: --search uniform is a method to compare with"),
        ({"mask": "0,3"}, UsageError, "--proxy: the mask is given, so none is searched"),
        (
            {"branches": "separate"},
            UsageError,
            "--proxy: it finds masks that all branches share",
        ),
        (
            {
                "model": "flux-nano",
                "proxy": "size=32x32",
                "engine": "openvino-genai",
                "steps": 12,
                "budget": "4",
            },
            UsageError,
            "--proxy: the engine of --for follows few masks",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_leaves_no_search_at_a_proxy_is_refused(flags, kind, message):
    asked = {"model": "wan2.1-nano", "budget": "2", "steps": 6, "proxy": "frames=5"} | flags
    if "mask" in asked:
        del asked["budget"]
    with pytest.raises(kind, match=message):
        make_request({}, asked).resolve()


@pytest.fixture
def flags(eight_prompts, tmp_path):
    """Flags of a fast compile whose masks are searched at a smaller size than 32x48 with 5 frames."""
    return eight_prompts | {"budget": "2", "proxy": "frames=1,size=32x32", "out": tmp_path / "x.budc.json"}


@pytest.fixture
def compile_(flags):
    """Compile what is asked for; return the artifact's document."""
    from budc.compiler.compile import compile_artifacts

    def run(**asked):
        (artifact,) = compile_artifacts(make_request({}, flags | asked).resolve())
        return artifact.document

    return run


def test_masks_are_searched_at_the_proxy_and_measured_at_the_real_size(compile_, flags):
    from budc.progress import reported

    seen = []
    with reported(lambda label, done, total: seen.append(label)):
        document = compile_(search="dp")
    searches = list(dict.fromkeys(label for label in seen if label.startswith("search")))
    assert searches == ["search (dp)", "search (joint)"]
    assert (document.shape.height, document.shape.width, document.shape.frames) == (32, 48, 5)
    settings = document.search.settings
    assert (document.search.algorithm, settings["proxy"]) == ("dp", "32x32x1")
    assert settings["proxyForwards"] > 0
    assert list(flags["out"].parent.iterdir()) == [flags["out"]]


@pytest.mark.slow
def test_kill_9_in_either_search_loses_one_measurement_at_most(flags, tmp_path):
    from collections import Counter

    import killing

    script = """
from budc.compiler.compile import compile_artifacts
from budc.compiler.policy_source import make_request
compile_artifacts(make_request({}, flags).resolve())
"""
    given = {
        key: str(value) if key in ("weights", "calibration", "held_out") else value
        for key, value in flags.items()
    }
    given |= {"search": "dp", "no_frames": True}

    def attempt(out, kill_after=None):
        ended = killing.run(
            script, tmp_path / "log", measurements=kill_after, flags=given | {"out": str(out)}
        )
        assert ended.killed is (kill_after is not None)
        return ended.measured

    undisturbed, out = tmp_path / "undisturbed.budc.json", tmp_path / "killed.budc.json"
    needed = attempt(undisturbed)
    proxied = needed.index(next(key for key in needed if key.startswith("joint")))
    measured = attempt(out, 2) + attempt(out, proxied) + attempt(out)
    assert len(measured) <= len(needed) + 2
    assert not Counter(needed) - Counter(measured)
    assert out.read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_shards_make_the_full_runs_of_the_real_size(compile_, flags, tmp_path):
    from budc.compiler.shard_run import compile_shard

    alone = compile_(search="dp", no_frames=True)
    folder = tmp_path / "shards"
    for number in (1, 2):
        asked = flags | {"search": "dp", "no_frames": True, "shard": f"{number}/2", "out": folder}
        plan = make_request({}, asked).resolve()
        compile_shard(plan, plan.shard, folder)
    merged = compile_(search="dp", no_frames=True, merge=folder)
    assert merged.policy.branches[0].mask == alone.policy.branches[0].mask
    assert merged.search.forwards == alone.search.forwards
    assert merged.search.settings["proxyForwards"] == alone.search.settings["proxyForwards"]


@pytest.mark.slow
def test_a_quality_counts_what_every_budget_took_at_the_proxy(compile_):
    document = compile_(budget=None, quality="latent-mse<=1", search="dp", no_frames=True)
    alone = compile_(budget=str(document.budget.nfe), search="dp", no_frames=True)
    assert document.search.settings["proxyForwards"] >= alone.search.settings["proxyForwards"]
    assert document.search.settings["proxy"] == "32x32x1"
