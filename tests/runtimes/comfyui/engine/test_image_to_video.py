"""Image to video on ComfyUI's engine: its own nodes make the conditionings; final latents beside diffusers' runtime.

Wan2.1 sees its image by CLIP too, Wan2.2 does not. The VAE is diffusers', what CLIP says of an image is random.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui_models import engine_model
from comfyui_runs import GUIDANCE, ROWS, noise, run
from msgspec.structs import replace
from torch import Tensor

import budc
from budc.runtimes.comfyui.apply import apply
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import ConditioningImage, PolicyDocument

FIRST, BOTH = ("first-frame",), ("first-frame", "last-frame")
CASES = {"Wan2.2": (FIRST, None), "Wan2.2, two frames": (BOTH, None), "Wan2.1": (FIRST, 1280)}
TOKENS = 512
"""Text tokens: diffusers' network takes what is beyond 512 for the image."""

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """A pipeline of diffusers, its network as a MODEL, a policy, and one run's conditionings for both."""

    def __init__(
        self, wan: Any, make: Callable[..., PolicyDocument], roles: Any, image_dim: int | None
    ) -> None:
        from diffusers import WanImageToVideoPipeline, WanTransformer3DModel

        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2,
            rope_max_seq_len=32, in_channels=36, image_dim=image_dim, added_kv_proj_dim=image_dim and 32,
        ).eval()  # fmt: skip
        parts = {name: getattr(wan, name) for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
        self.pipe = WanImageToVideoPipeline(**parts, transformer=transformer)
        self.pipe.encode_image = lambda *_: self.seen
        self.pipe.set_progress_bar_config(disable=True)
        images = [ConditioningImage(role=role) for role in roles]
        self.document = replace(make(self.pipe, [not row for row in ROWS], ROWS), images=images)
        self.patcher = engine_model(transformer)
        self.seen = None if image_dim is None else random(1, 257, image_dim, seed=4)
        self.texts = [random(1, TOKENS, 16, seed=seed) for seed in (1, 2)]
        self.images = {
            name: random(1, 3, 16, 32, seed=seed).sigmoid()
            for name, seed in zip(("image", "last_image"), (5, 6), strict=True)
            if name == "image" or len(roles) == 2
        }

    def encode(self, clip: Tensor) -> Tensor:
        """Return the latents of a clip (frames, rows, columns, 3), as a VAE of ComfyUI."""
        from diffusers.pipelines.wan.pipeline_wan_i2v import retrieve_latents

        vae = self.pipe.vae
        latents = retrieve_latents(vae.encode(2 * clip.movedim(-1, 0)[None] - 1), sample_mode="argmax")
        mean, std = (
            torch.tensor(value)[:, None, None, None]
            for value in (vae.config.latents_mean, vae.config.latents_std)
        )
        return (latents - mean) / std

    def conditionings(self, **changes: Any) -> dict[str, Any]:
        """Positive and negative, as WanImageToVideo or WanFirstLastFrameToVideo leaves them."""
        from comfy_extras import nodes_wan

        first, last = (
            None if image is None else image.movedim(1, -1)
            for image in (self.images["image"], self.images.get("last_image"))
        )
        seen = None if self.seen is None else SimpleNamespace(penultimate_hidden_states=self.seen)
        texts = ([[text, {}]] for text in self.texts)
        vae = SimpleNamespace(encode=self.encode, latent_channels=16, spacial_compression_encode=lambda: 8)
        if last is None:
            made = nodes_wan.WanImageToVideo.execute(*texts, vae, 32, 16, 5, 1, first, seen)
        else:
            made = nodes_wan.WanFirstLastFrameToVideo.execute(*texts, vae, 32, 16, 5, 1, first, last, seen)
        return {
            name: [[text, {**notes, **changes}] for text, notes in entries]
            for name, entries in zip(("positive", "negative"), made.args, strict=False)
        }

    def diffusers(self) -> Tensor:
        with budc.applied(self.pipe, self.document, allow_unsigned=True):
            return self.pipe(
                **self.images, prompt_embeds=self.texts[0],
                negative_prompt_embeds=self.texts[1], height=16, width=32, num_frames=5, latents=noise(),
                guidance_scale=GUIDANCE, num_inference_steps=len(ROWS), output_type="latent",
            ).frames  # fmt: skip


@pytest.fixture
def case(wan: Any, compiled_for: Any, request: pytest.FixtureRequest) -> Case:
    return Case(wan, compiled_for, *CASES[getattr(request, "param", "Wan2.2")])


@pytest.mark.parametrize("case", list(CASES), indirect=True)
def test_final_latents_are_those_of_diffusers(case: Case) -> None:
    actual = run(apply(case.patcher, case.document), case.document, **case.conditionings())
    expected = case.diffusers()
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("Wan2.2", {"concat_latent_image": None}, "calibrated for first-frame, this run has none; use the node Wan"),
        ("Wan2.2", {"concat_mask": torch.zeros(1, 1, 2, 2, 4)}, "first-frame, this run has other frames of the clip"),
        ("Wan2.2, two frames", {"concat_mask": torch.ones(1, 4, 2, 2, 4).index_fill(2, torch.tensor(0), 0)},
         "calibrated for first-frame and last-frame, this run has first-frame"),
        ("Wan2.1", {"clip_vision_output": None}, "the conditioning has no CLIP vision output; connect CLIPVisionEnc"),
    ],
    indirect=["case"],
)  # fmt: skip
def test_other_images_are_refused(case: Case, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationMismatch, match=f"images: .*{message}"):
        run(apply(case.patcher, case.document), case.document, **case.conditionings(**changes))


def test_an_image_for_a_policy_without_is_refused(case: Case) -> None:
    document = replace(case.document, images=[])
    with pytest.raises(
        CalibrationMismatch, match="cond has concat_latent_image, concat_mask beside its text"
    ):
        run(apply(case.patcher, document), document, **case.conditionings())
