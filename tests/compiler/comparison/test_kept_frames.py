"""Which prompts are kept, and files that stay small whatever the clips are."""

import io

import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from budc.compiler.comparison import film_strip  # noqa: E402
from budc.compiler.comparison.film_strip import film_strips  # noqa: E402
from budc.compiler.comparison.kept_frames import keep_frames, ranked_prompts, ranking_metric  # noqa: E402


def picture(file):
    return torch.tensor(list(Image.open(io.BytesIO(file)).convert("RGB").tobytes()))


def test_prompts_are_ranked_in_the_metric_s_direction():
    values = [3.0, 1.0, 5.0, 4.0, 2.0]
    assert ranked_prompts(values, higher_is_better=True) == {"best": 2, "median": 0, "worst": 1}
    assert ranked_prompts(values, higher_is_better=False) == {"best": 1, "median": 0, "worst": 2}
    assert ranked_prompts(values[:2], higher_is_better=True) == {"best": 0, "worst": 1}
    assert ranked_prompts(values[:1], higher_is_better=True) == {"worst": 0}


def test_frames_rank_before_latents():
    assert ranking_metric({"latent-mse": [1], "ssim": [1], "psnr": [1]}) == "psnr"
    assert ranking_metric({"latent-mse": [1], "ssim": [1]}) == "ssim"
    assert ranking_metric({"latent-mse": [1]}) == "latent-mse"


def test_a_small_clip_is_kept_as_it_is():
    clip = torch.rand(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    strips = film_strips([clip, 1 - clip])
    assert strips[:4] == (4, 6, 2, True)
    expected = (clip * 255).round().byte().permute(1, 2, 3, 0).flatten()
    assert torch.equal(picture(strips.files[0]), expected)


def test_a_long_clip_keeps_its_ends():
    clip = torch.arange(31).div(255).view(1, 31, 1, 1).expand(3, 31, 2, 2)
    strips = film_strips([clip])
    assert strips.frames == 16
    assert picture(strips.files[0]).view(16, -1)[:, 0].tolist() == list(range(0, 31, 2))


def test_what_is_too_large_is_compressed_then_scaled_down_all_alike(monkeypatch):
    noise = torch.rand(3, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    clips = [torch.zeros_like(noise), noise]
    monkeypatch.setattr(film_strip, "MOST_BYTES", 4500)
    compressed = film_strips(clips)
    assert compressed[:4] == (64, 32, 1, False)
    monkeypatch.setattr(film_strip, "MOST_BYTES", 600)
    smaller = film_strips(clips)
    assert smaller.height < 64
    assert max(map(len, smaller.files)) <= 600
    assert {Image.open(io.BytesIO(file)).size for file in smaller.files} == {(smaller.width, smaller.height)}


def test_a_large_picture_is_scaled_down():
    assert film_strips([torch.zeros(3, 1, 1536, 2048)])[:2] == (768, 1024)
    assert film_strips([torch.zeros(3, 2, 600, 1024)])[:2] == (300, 512)


def test_the_policy_is_kept_beside_the_full_run():
    full, policy = (
        torch.zeros(3, 3, 1, 2, 2),
        torch.stack([torch.full((3, 1, 2, 2), 0.2 * i) for i in range(3)]),
    )
    samples = {"latent-mse": [0.0, 1.0, 2.0], "psnr": [9.0, 8.0, 7.0]}
    kept, files = keep_frames(lambda latents: latents, policy, full, ["a\n b", "c", "d" * 2000], samples)
    assert [(prompt.rank, prompt.prompt) for prompt in kept.prompts] == [
        ("best", 0),
        ("median", 1),
        ("worst", 2),
    ]
    assert [prompt.text for prompt in kept.prompts[:2]] == ["a b", "c"]
    assert len(kept.prompts[2].text) == 1024
    assert files.keys() == kept.files.keys()
    shades = {name[: name.rindex("-")]: int(picture(file)[0]) for name, file in files.items()}
    assert shades == {
        **dict.fromkeys(("best-full", "median-full", "worst-full", "best-policy"), 0),
        **{"median-policy": 51, "worst-policy": 102},
    }
