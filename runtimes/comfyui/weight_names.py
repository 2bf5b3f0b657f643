"""Names of weights: ComfyUI's single files keep each model's original names, policies use those of diffusers.

    list(diffusers_tensors(FLUX, "double_blocks.0.img_attn.qkv.weight", weight))
    # [("transformer_blocks.0.attn.to_q.weight", weight[:h]), ("….to_k.weight", weight[h:2 * h]), …]

A tensor of ComfyUI is one of diffusers', or several below each other. Values are never changed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Form = Literal["whole", "equal parts", "attention and mlp", "halves swapped"]
"""How a tensor's rows are those of diffusers' tensors. "attention and mlp": three of as many rows as the tensor's
network has channels, then the rest."""


@dataclass(frozen=True)
class Rule:
    """What one kind of tensor is called in diffusers; `pattern` matches ComfyUI's whole name."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]
    form: Form = "whole"


def _module(name: str, *names: str, form: Form = "whole") -> Rule:
    """Return the rule of a module's weight and bias; # in the names stands for the number of a block."""
    pattern = re.escape(name).replace(r"\#", r"(\d+)")
    groups = pattern.count(r"(\d+)")
    end = rf".\{groups + 1}"
    others = tuple(other.replace("#", r"\1") + end for other in names)
    return Rule(re.compile(rf"{pattern}\.(weight|bias)"), others, form)


def _tensor(name: str, other: str) -> Rule:
    return Rule(re.compile(re.escape(name).replace(r"\#", r"(\d+)")), (other.replace("#", r"\1"),))


def _attention(name: str, other: str, projections: Sequence[str]) -> Rule:
    names = (f"{other}.{projection}" for projection in projections)
    return _module(name, *names, form="equal parts")


_QKV = ("to_q", "to_k", "to_v")
_DOUBLE, _SINGLE = "transformer_blocks.#", "single_transformer_blocks.#"
_TIME = "time_text_embed"

FLUX: tuple[Rule, ...] = (
    _attention("double_blocks.#.img_attn.qkv", f"{_DOUBLE}.attn", _QKV),
    _attention("double_blocks.#.txt_attn.qkv", f"{_DOUBLE}.attn", ("add_q_proj", "add_k_proj", "add_v_proj")),
    _module("double_blocks.#.img_attn.proj", f"{_DOUBLE}.attn.to_out.0"),
    _module("double_blocks.#.txt_attn.proj", f"{_DOUBLE}.attn.to_add_out"),
    _module("double_blocks.#.img_attn.norm.query_norm", f"{_DOUBLE}.attn.norm_q"),
    _module("double_blocks.#.img_attn.norm.key_norm", f"{_DOUBLE}.attn.norm_k"),
    _module("double_blocks.#.txt_attn.norm.query_norm", f"{_DOUBLE}.attn.norm_added_q"),
    _module("double_blocks.#.txt_attn.norm.key_norm", f"{_DOUBLE}.attn.norm_added_k"),
    _module("double_blocks.#.img_mod.lin", f"{_DOUBLE}.norm1.linear"),
    _module("double_blocks.#.txt_mod.lin", f"{_DOUBLE}.norm1_context.linear"),
    _module("double_blocks.#.img_mlp.0", f"{_DOUBLE}.ff.net.0.proj"),
    _module("double_blocks.#.img_mlp.2", f"{_DOUBLE}.ff.net.2"),
    _module("double_blocks.#.txt_mlp.0", f"{_DOUBLE}.ff_context.net.0.proj"),
    _module("double_blocks.#.txt_mlp.2", f"{_DOUBLE}.ff_context.net.2"),
    _module(
        "single_blocks.#.linear1",
        *(f"{_SINGLE}.attn.{name}" for name in _QKV),
        f"{_SINGLE}.proj_mlp",
        form="attention and mlp",
    ),
    _module("single_blocks.#.linear2", f"{_SINGLE}.proj_out"),
    _module("single_blocks.#.norm.query_norm", f"{_SINGLE}.attn.norm_q"),
    _module("single_blocks.#.norm.key_norm", f"{_SINGLE}.attn.norm_k"),
    _module("single_blocks.#.modulation.lin", f"{_SINGLE}.norm.linear"),
    _module("img_in", "x_embedder"),
    _module("txt_in", "context_embedder"),
    _module("time_in.in_layer", f"{_TIME}.timestep_embedder.linear_1"),
    _module("time_in.out_layer", f"{_TIME}.timestep_embedder.linear_2"),
    _module("vector_in.in_layer", f"{_TIME}.text_embedder.linear_1"),
    _module("vector_in.out_layer", f"{_TIME}.text_embedder.linear_2"),
    _module("guidance_in.in_layer", f"{_TIME}.guidance_embedder.linear_1"),
    _module("guidance_in.out_layer", f"{_TIME}.guidance_embedder.linear_2"),
    # Shift and scale come in the other order.
    _module("final_layer.adaLN_modulation.1", "norm_out.linear", form="halves swapped"),
    _module("final_layer.linear", "proj_out"),
)

_CONDITION = "condition_embedder"
WAN: tuple[Rule, ...] = (
    *(
        _module(f"blocks.#.{attention}.{name}", f"blocks.#.{other}.{renamed}")
        for attention, other in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for name, renamed in (
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("o", "to_out.0"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    ),
    _module("blocks.#.cross_attn.k_img", "blocks.#.attn2.add_k_proj"),
    _module("blocks.#.cross_attn.v_img", "blocks.#.attn2.add_v_proj"),
    _module("blocks.#.cross_attn.norm_k_img", "blocks.#.attn2.norm_added_k"),
    _module("blocks.#.norm3", "blocks.#.norm2"),
    _module("blocks.#.ffn.0", "blocks.#.ffn.net.0.proj"),
    _module("blocks.#.ffn.2", "blocks.#.ffn.net.2"),
    _tensor("blocks.#.modulation", "blocks.#.scale_shift_table"),
    _module("time_embedding.0", f"{_CONDITION}.time_embedder.linear_1"),
    _module("time_embedding.2", f"{_CONDITION}.time_embedder.linear_2"),
    _module("time_projection.1", f"{_CONDITION}.time_proj"),
    _module("text_embedding.0", f"{_CONDITION}.text_embedder.linear_1"),
    _module("text_embedding.2", f"{_CONDITION}.text_embedder.linear_2"),
    _module("img_emb.proj.0", f"{_CONDITION}.image_embedder.norm1"),
    _module("img_emb.proj.1", f"{_CONDITION}.image_embedder.ff.net.0.proj"),
    _module("img_emb.proj.3", f"{_CONDITION}.image_embedder.ff.net.2"),
    _module("img_emb.proj.4", f"{_CONDITION}.image_embedder.norm2"),
    _tensor("img_emb.emb_pos", f"{_CONDITION}.image_embedder.pos_embed"),
    _tensor("head.modulation", "scale_shift_table"),
    _module("head.head", "proj_out"),
)

Z_IMAGE: tuple[Rule, ...] = (
    *(
        rule
        for blocks in ("layers", "noise_refiner", "context_refiner")
        for rule in (
            _attention(f"{blocks}.#.attention.qkv", f"{blocks}.#.attention", _QKV),
            _module(f"{blocks}.#.attention.out", f"{blocks}.#.attention.to_out.0"),
            _module(f"{blocks}.#.attention.q_norm", f"{blocks}.#.attention.norm_q"),
            _module(f"{blocks}.#.attention.k_norm", f"{blocks}.#.attention.norm_k"),
        )
    ),
    _module("x_embedder", "all_x_embedder.2-1"),
    _module("final_layer.linear", "all_final_layer.2-1.linear"),
    _module("final_layer.adaLN_modulation.1", "all_final_layer.2-1.adaLN_modulation.1"),
)

QWEN_IMAGE: tuple[Rule, ...] = ()
"""The same names in both."""


def diffusers_tensors(
    rules: Sequence[Rule], name: str, tensor: torch.Tensor, channels: int = 0
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of diffusers, by name, that are ComfyUI's tensor `name`.

    A tensor that no rule is for keeps its name. `channels` is the width of the network's hidden state.
    """
    for rule in rules:
        match = rule.pattern.fullmatch(name)
        if match is not None:
            names = [match.expand(template) for template in rule.names]
            yield from zip(names, _parts(rule.form, tensor, len(names), channels), strict=True)
            return
    yield name, tensor


def _parts(form: Form, tensor: torch.Tensor, count: int, channels: int) -> Sequence[torch.Tensor]:
    if form == "equal parts":
        return tensor.chunk(count)
    if form == "attention and mlp":
        return torch.split(tensor, [channels] * 3 + [len(tensor) - 3 * channels])
    if form == "halves swapped":
        return [torch.cat(tensor.chunk(2)[::-1])]
    return [tensor]
