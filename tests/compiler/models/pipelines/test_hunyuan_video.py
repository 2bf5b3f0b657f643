"""HunyuanVideo, end to end on a tiny random folder: masked text in a template, guidance as an input, clips."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from elsewhere import rollouts  # noqa: E402

import budc  # noqa: E402
from budc.cli.generation.pipeline import CallSettings, generate  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.denoisers.batched import BatchedDenoiser  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.denoiser import ModelDenoiser  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.policies.profile import load_profile, read_prompts  # noqa: E402
from budc.policies.samples import HELD_OUT_SEED  # noqa: E402
from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.schema.errors import UnsupportedModel, WeightsMissing  # noqa: E402

CPU = torch.device("cpu")
NAME = "hunyuan-video-tiny"
WORDS = ["a", "red", "blue", "green", "box", "ring", "leaf", "boat", "house", "two", "small", "tall", "old"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained, tiny HunyuanVideo. Its tokens are words: of 99 in the template's head the pipeline
    crops 95.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        LlamaConfig,
        LlamaModel,
        PreTrainedTokenizerFast,
    )

    words = {word: index for index, word in enumerate(["<pad>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", padding_side="right"
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    clip_words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        num_layers=1, num_single_layers=2, num_refiner_layers=1, num_attention_heads=2, attention_head_dim=16,
        text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6), in_channels=4, out_channels=4,
    )  # fmt: skip
    pipe = diffusers.HunyuanVideoPipeline(
        LlamaModel(
            LlamaConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, pad_token_id=0,
            )
        ),
        tokenizer,
        transformer,
        diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_words), hidden_size=8, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=77, projection_dim=8,
                bos_token_id=len(clip_words) - 2, eos_token_id=len(clip_words) - 1,
            )
        ),
        CLIPTokenizer(vocab={word: index for index, word in enumerate(clip_words)}, merges=[]),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "hunyuan-video"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def profile(tiny_profile: Any) -> Any:
    name = tiny_profile(NAME, "hunyuan-video", height=32, width=48, frames=5, text_tokens=12)
    return load_profile(name)


@pytest.fixture
def model(profile: Any, folder: Path) -> Any:
    return load_model(profile, folder, CPU)


def pipeline(folder: Path, **options: Any) -> Any:
    loaded = diffusers.HunyuanVideoPipeline.from_pretrained(folder, **options)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def pipe(folder: Path) -> Any:
    return pipeline(folder)


def deployed(pipe: Any, prompt: str, seed: int, steps: int = 6, output: str = "latent") -> Any:
    return pipe(
        prompt=prompt,
        height=32,
        width=48,
        num_frames=5,
        num_inference_steps=steps,
        guidance_scale=6.0,
        max_sequence_length=12,
        generator=torch.Generator().manual_seed(seed),
        output_type=output,
    ).frames


def test_the_full_rollout_is_the_pipeline_bit_for_bit(model: Any, pipe: Any) -> None:
    sampler = model.sampler(6)
    prompts = read_prompts("held-out.txt", 2)
    conditions = encode_prompts(model, prompts, range(5, 7))
    # Four words of the template's head, the prompt's, three of its tail; the rest is padding.
    assert conditions.embeddings["cond"]["mask"].sum(1).tolist() == [10, 10]
    for index, prompt in enumerate(prompts):
        latents = PipelineRollout(model).run(
            full_policy(6, ("cond",)), sampler, conditions.part(index, index + 1)
        )
        assert latents.shape == (1, 4, 2, 4, 6)
        assert torch.equal(latents, deployed(pipe, prompt, 5 + index))
        assert sampler.sigmas == pipe.scheduler.sigmas.tolist()
        assert sampler.timesteps == pipe.scheduler.timesteps.tolist()


def test_half_precision_is_the_pipeline_s_too(profile: Any, folder: Path) -> None:
    import msgspec

    half = load_model(msgspec.structs.replace(profile, dtype="bfloat16"), folder, CPU)
    pipe = pipeline(folder, dtype=torch.bfloat16)
    conditions = encode_prompts(half, ["a green leaf"], [5])
    latents = PipelineRollout(half).run(full_policy(6, ("cond",)), half.sampler(6), conditions)
    assert torch.equal(latents, deployed(pipe, "a green leaf", 5).to(latents.dtype))


def test_samples_of_a_batch_are_those_of_single_forwards(model: Any) -> None:
    conditions = encode_prompts(model, ["a leaf", "two small old boat house", "a box"], range(3))
    denoiser, time = ModelDenoiser(model), torch.tensor(700.0)
    together = BatchedDenoiser(denoiser, conditions).compute("cond", conditions.noise, time)
    alone = BatchedDenoiser(denoiser, conditions, 1).compute("cond", conditions.noise, time)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    # 2 × 2 × 3 tokens.
    assert together[1].shape == (3, 12, 32)


def test_an_artifact_runs_as_it_was_rolled_out(model: Any, folder: Path, tmp_path: Path, pipe: Any) -> None:
    request = CompileRequest(
        model=NAME, budget="3", weights=folder, search="dp", out=tmp_path / "clip.budc.json"
    )
    (artifact,) = compile_artifacts(request.resolve())
    document = artifact.document
    assert document.budget.nfe == 3
    prompt = read_prompts("held-out.txt", 2)[0]
    conditions = encode_prompts(model, [prompt], [HELD_OUT_SEED])
    expected = PipelineRollout(model).run(document.policy, document.sampler, conditions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, artifact.path, allow_unsigned=True) as handle:
            made = deployed(pipe, prompt, HELD_OUT_SEED)
            settings = CallSettings.of(pipe, document, model.profile)
            run = generate(pipe, settings, prompt, HELD_OUT_SEED, 6, "as budc run does")
            assert handle.uncalibrated == ()
    assert torch.equal(made, expected)
    assert torch.equal(run.latents, expected)
    assert run.frames.shape == (5, 32, 48, 3)
    assert not torch.allclose(made, deployed(pipe, prompt, HELD_OUT_SEED), rtol=1e-3)


def test_rollouts_elsewhere(model: Any) -> None:
    here, there = rollouts(model, read_prompts("held-out.txt", 2))
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_frames_are_the_pipeline_s(model: Any, pipe: Any) -> None:
    latents = deployed(pipe, "a red box", 1, 2)
    frames = model.adapter.decoder(model.folder, model.profile, CPU)(latents)
    assert frames.shape == (1, 3, 5, 32, 48)
    torch.testing.assert_close(frames.transpose(1, 2), deployed(pipe, "a red box", 1, 2, "pt"))


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_a_folder_without_a_text_encoder_is_refused(
    profile: Any, folder: Path, tmp_path: Path, part: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns(part))
    with pytest.raises(WeightsMissing, match=f"broken/{part}: no configuration there"):
        load_model(profile, broken, CPU)


def test_a_folder_of_another_pipeline_is_refused(profile: Any, flux_folder: Path) -> None:
    with pytest.raises(
        UnsupportedModel, match="is a FluxPipeline, but hunyuan-video-tiny is a HunyuanVideoPipeline"
    ):
        load_model(profile, flux_folder, CPU)
