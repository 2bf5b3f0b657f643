"""A CLIP model that compares frames with a prompt, and the weights of open_clip in the classes of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from budc.compiler.metrics.crops import normalised
from budc.compiler.metrics.weights import load_tokenizer, read_tensors, take, with_weights
from budc.runtimes.sampling.loading import loading

_RENAMED = (
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.embeddings.", ""),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_projection.weight", "text_projection"),
    ("visual_projection.weight", "visual.proj"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.", "visual."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm", ".ln_"),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
"""Names of transformers, and what open_clip calls the same."""


class Clip:
    """A model on its device, its tokenizer, and how frames become its input: a crop (frames, side) -> squares."""

    def __init__(
        self, model: Any, folder: Path, device: torch.device, crop: Callable[[Tensor, int], Tensor]
    ) -> None:
        """Take the tokenizer from a folder.

        Raises:
            WeightsMissing: it cannot be loaded.
            UnsupportedModel: it is another model's.
        """
        text = model.config.text_config
        self._tokenizer = load_tokenizer(CLIPTokenizer, folder, text.vocab_size)
        self._length, self._side = text.max_position_embeddings, model.config.vision_config.image_size
        self._model = model.to(device)
        self._device, self._crop = device, crop

    @torch.no_grad()
    def cosines(self, frames: Tensor, prompt: str) -> Tensor:
        """Return the cosine of each frame's embedding with the prompt's, for frames (3, frames, rows, columns)."""
        tokens = self._tokenizer(prompt, truncation=True, max_length=self._length, return_tensors="pt")
        pooled = self._model.text_model(input_ids=tokens.input_ids.to(self._device)).pooler_output
        text = self._model.text_projection(pooled)
        found = []
        for frame in frames.unbind(1):
            pixels = normalised(self._crop(frame[None].to(self._device), self._side))
            pooled = self._model.vision_model(pixel_values=pixels).pooler_output
            found.append(cosine_similarity(self._model.visual_projection(pooled), text))
        return torch.cat(found)


def load_clip(folder: Path) -> Any:
    """Return the CLIPModel that transformers saved in a folder, in float32.

    Raises:
        ModelError: `config.json` or `model.safetensors` is missing, not safe or not of one CLIPModel.
    """
    with loading(folder):
        config = CLIPConfig.from_json_file(folder / "config.json")
    path = folder / "model.safetensors"
    tensors = read_tensors(path)
    return with_weights(lambda: CLIPModel(config), lambda name, shape: take(tensors, name, shape, path))


def from_open_clip(tensors: Mapping[str, Tensor], config: Any, path: Path) -> Any:
    """Return a CLIPModel with tensors that open_clip named.

    Raises:
        UnsupportedModel: a tensor is missing, or not of the shape that the configuration says; the error names it.
    """
    return with_weights(
        lambda: CLIPModel(config), lambda name, shape: _from_open_clip(tensors, name, shape, path)
    )


def _from_open_clip(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    for ours, theirs in _RENAMED:
        name = name.replace(ours, theirs)
    for part, projection in enumerate(("q_proj", "k_proj", "v_proj")):
        if f".self_attn.{projection}." in name:
            name = name.replace(f".self_attn.{projection}.", ".attn.in_proj_")
            return take(tensors, name, (3 * shape[0], *shape[1:]), path).chunk(3)[part].clone()
    if name in ("text_projection", "visual.proj"):
        return take(tensors, name, shape[::-1], path).T.contiguous()
    return take(tensors, name, shape, path)
