"""WanPipeline's text encoder, VAE decoder and tokenizer, in the forms that are exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from tokenizers import Tokenizer
from torch import Tensor, nn

from budc.compiler.export.forms import Form
from budc.compiler.loading import loading
from budc.policies.profile import ModelProfile
from budc.runtimes.manifest import TextRule
from budc.schema.errors import ParityMismatch, UnsupportedModel

TOKENIZER = "tokenizer/tokenizer.json"


class _TextEncoder(nn.Module):
    """Token states, zero after the last token of each prompt."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.encoder(input_ids, attention_mask).last_hidden_state
        kept = attention_mask.gt(0).sum(dim=1, keepdim=True)
        inside = torch.arange(states.shape[1], device=states.device)[None] < kept
        return torch.where(inside[..., None], states, torch.zeros((), dtype=states.dtype))


class _Decoder(nn.Module):
    """Latents, as the scheduler leaves them, to frames (B, F, 3, H, W) in 0..1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        shape = (1, vae.config.z_dim, 1, 1, 1)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.tensor(vae.config.latents_mean).view(shape))
        self.register_buffer("scale", 1.0 / torch.tensor(vae.config.latents_std).view(shape))

    def forward(self, latents: Tensor) -> Tensor:
        video: Tensor = self.vae.decode(latents / self.scale + self.mean, return_dict=False)[0]
        return (video * 0.5 + 0.5).clamp(0, 1).transpose(1, 2)


class WanParts:
    """Text encoder and tokenizer of one folder; the VAE is loaded when it is asked for."""

    def __init__(self, folder: Path, profile: ModelProfile, dtype: torch.dtype) -> None:
        self.folder, self.profile = folder, profile
        with loading(folder / "text_encoder"):
            self._pipe = WanPipeline.from_pretrained(
                folder, transformer=None, vae=None, dtype=dtype, use_safetensors=True, local_files_only=True
            )

    def text_form(self, prompts: Sequence[str]) -> Form:
        """Return the text encoder's form, called with `prompts`."""
        ids, mask = self._tokens(prompts)
        encoder = self._pipe.text_encoder.eval().requires_grad_(False)
        return Form("text_encoder", _TextEncoder(encoder), {"input_ids": ids, "attention_mask": mask})

    def decoder_form(self, latents: Tensor) -> Form:
        """Return the VAE decoder's form, in float32, in which the compiler decodes too."""
        with loading(self.folder / "vae"):
            vae = AutoencoderKLWan.from_pretrained(
                self.folder, subfolder="vae", dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
        return Form("vae_decoder", _Decoder(vae.eval().requires_grad_(False)), {"latents": latents})

    def save_tokenizer(self, folder: Path, prompts: Sequence[str]) -> TextRule:
        """Write the tokenizer below `folder` and return how it is used.

        Raises:
            UnsupportedModel: it has no backend of the `tokenizers` package, or pads at the front.
            ParityMismatch: read by that package alone, it makes other tokens of a prompt.
        """
        tokenizer = self._pipe.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or tokenizer.padding_side != "right":
            raise UnsupportedModel(
                f"{self.folder}/tokenizer: {type(tokenizer).__name__} cannot be run without transformers"
            )
        # By way of text: the backend itself keeps the padding that its last call asked for.
        content = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
        path = folder / TOKENIZER
        path.parent.mkdir()
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        alone = Tokenizer.from_file(str(path))
        last = alone.encode("").ids[-1:]
        rule = TextRule(
            cleaning="wan",
            tokens=self.profile.text_tokens,
            padding_id=tokenizer.pad_token_id,
            padding_token=tokenizer.pad_token,
            end_id=tokenizer.eos_token_id if last == [tokenizer.eos_token_id] else None,
            tokenizer=TOKENIZER,
        )
        self._compare(alone, rule, [*prompts, "", " ".join(prompts) * rule.tokens])
        return rule

    def _compare(self, alone: Tokenizer, rule: TextRule, texts: Sequence[str]) -> None:
        alone.enable_truncation(rule.tokens)
        alone.enable_padding(length=rule.tokens, pad_id=rule.padding_id, pad_token=rule.padding_token)
        ids, mask = self._tokens(texts)
        for text, encoded, wanted, kept in zip(
            texts, alone.encode_batch(texts), ids.tolist(), mask.tolist(), strict=True
        ):
            if encoded.ids != wanted or encoded.attention_mask != kept:
                raise ParityMismatch(f"{TOKENIZER}: makes other tokens of {text[:80]!r} than the pipeline's")

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        made = self._pipe.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.profile.text_tokens,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return made.input_ids, made.attention_mask


def wan_parts(folder: Path, profile: ModelProfile, dtype: torch.dtype) -> WanParts:
    """Load what is exported beside the denoiser.

    Raises:
        UnsupportedModel: a pipeline of another class.
        WeightsMissing: a part cannot be loaded.
    """
    if profile.pipeline_class != "WanPipeline":
        raise UnsupportedModel(f"cannot export a {profile.pipeline_class}, only a WanPipeline")
    return WanParts(folder, profile, dtype)
