"""ZImageTransformer2DModel on batches of one text length, with tensors in place of lists of samples.

The model's own forward pads each sample's text to a multiple of 32 tokens, and places the image after it. Here every
text has as many tokens as the graph, and what is beyond its own multiple of 32 is masked. All layers are the model's,
and run on the same numbers; rotary factors are looked up in tables of real numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from torch import Tensor, nn

_PATCH = "2-1"
"""Key of the embedder and the final layer of the pipeline's patches: 2 × 2 latents of one frame."""


class ZImageNetwork(nn.Module):
    """A transformer's layers, run for images of `cells` (rows, columns) and texts of at most `tokens` tokens."""

    def __init__(self, transformer: Any, cells: tuple[int, int], tokens: int) -> None:
        super().__init__()
        self.cells = cells
        self.t_scale: float = transformer.t_scale
        self.t_embedder = transformer.t_embedder
        self.cap_embedder = transformer.cap_embedder
        self.x_embedder = transformer.all_x_embedder[_PATCH]
        self.final_layer = transformer.all_final_layer[_PATCH]
        self.noise_refiner = transformer.noise_refiner
        self.context_refiner = transformer.context_refiner
        self.layers = transformer.layers
        self.x_pad_token = transformer.x_pad_token
        self.cap_pad_token = transformer.cap_pad_token
        self.text_tokens = _padded(tokens)
        rope = transformer.rope_embedder
        tables = rope.precompute_freqs_cis(rope.axes_dims, rope.axes_lens, theta=rope.theta)
        first, rows, columns = (torch.view_as_real(table) for table in tables)
        (height, width), identity = cells, (rows[0], columns[0])
        self.first_axis: Tensor
        self.image_axes: Tensor
        self.text_factors: Tensor
        self.register_buffer("first_axis", first)
        self.register_buffer(
            "image_axes",
            torch.cat(
                [
                    rows[:height, None].expand(-1, width, -1, -1),
                    columns[None, :width].expand(height, -1, -1, -1),
                ],
                -2,
            ).flatten(0, 1),
        )
        text = first[1 : self.text_tokens + 1]
        self.register_buffer(
            "text_factors",
            torch.cat([text, *(table.expand(len(text), -1, -1) for table in identity)], -2),
        )

    def forward(
        self, latents: Tensor, time: Tensor, text: Tensor, tokens: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Return the network's output (n, channels, rows, columns), alone in a tuple.

        Args:
            latents: (n, channels, rows, columns).
            time: (n,), from 0 to 1.
            text: token states (n, tokens, width).
            tokens: (n,), how many of them are text.
            return_dict: not used.
        """
        batch, count = latents.shape[0], self.image_axes.shape[0]
        time_states = self.t_embedder(time * self.t_scale).type_as(latents)
        padded = _padded(tokens)
        image, image_factors = self._image(latents, padded)
        for layer in self.noise_refiner:
            image = layer(image, None, torch.view_as_complex(image_factors), time_states)
        text, text_factors, mask = self._text(text, tokens, padded)
        for layer in self.context_refiner:
            text = layer(text, mask, torch.view_as_complex(text_factors))
        hidden = torch.cat([image, text], 1)
        factors = torch.cat([image_factors, text_factors], 1)
        mask = torch.cat([mask.new_ones(batch, image.shape[1]), mask], 1)
        for layer in self.layers:
            hidden = layer(hidden, mask, torch.view_as_complex(factors), time_states)
        cells = self.final_layer(hidden, c=time_states)[:, :count]
        return (self._unpatched(cells),)

    def _image(self, latents: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image's tokens (n, N, width), padded, and their rotary factors (n, N, width of a head / 2, 2)."""
        batch, channels = latents.shape[:2]
        rows, columns = self.cells
        patches = latents.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1)
        image = self.x_embedder(patches.reshape(batch, rows * columns, 4 * channels))
        axis = self.first_axis[padded + 1]
        axes = [
            axis[:, None].expand(-1, rows * columns, -1, -1),
            self.image_axes.expand(batch, -1, -1, -1),
        ]
        factors = torch.cat(axes, -2)
        missing = -(rows * columns) % SEQ_MULTI_OF
        if missing:
            image = torch.cat([image, self.x_pad_token.expand(batch, missing, -1)], 1)
            # Padding stands at the origin, where nothing is rotated.
            origin = torch.stack(
                [torch.ones_like(factors[:, :1, :, 0]), torch.zeros_like(factors[:, :1, :, 0])], -1
            )
            factors = torch.cat([factors, origin.expand(-1, missing, -1, -1)], 1)
        return image, factors

    def _text(self, text: Tensor, tokens: Tensor, padded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the text's tokens (n, N, width), their rotary factors, and the mask (n, N) of those to attend to."""
        text = nn.functional.pad(text, (0, 0, 0, self.text_tokens - text.shape[1]))
        index = torch.arange(self.text_tokens, device=text.device)[None]
        text = torch.where((index < tokens[:, None])[..., None], self.cap_embedder(text), self.cap_pad_token)
        return text, self.text_factors.expand(text.shape[0], -1, -1, -1), index < padded[:, None]

    def _unpatched(self, cells: Tensor) -> Tensor:
        batch, channels = cells.shape[0], cells.shape[2] // 4
        rows, columns = self.cells
        patches = cells.reshape(batch, rows, columns, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
        return patches.reshape(batch, channels, 2 * rows, 2 * columns)


def _padded(tokens: Any) -> Any:
    """Return the next multiple of 32."""
    return (tokens + SEQ_MULTI_OF - 1) // SEQ_MULTI_OF * SEQ_MULTI_OF
