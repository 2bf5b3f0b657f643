"""LoRA on a MODEL of ComfyUI's engine."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from comfyui_models import engine_model
from comfyui_runs import GUIDANCE, ROWS, noise, run, text
from lora import write_lora
from safetensors.torch import load_file, save_file

import budc
from budc.runtimes.admission.settings import UncalibratedWarning
from budc.runtimes.comfyui.adapters import load_adapter
from budc.runtimes.comfyui.apply import apply
from budc.schema.errors import CalibrationMismatch, UsageError
from budc.schema.policy import AdapterRule, PolicyDocument, ScaledAdapter

LORA = {"diffusion_model.blocks.0.self_attn.q.weight": ("diff", (torch.ones(32, 32),))}


def test_lora_before_or_after_the_policy_is_refused(patcher: Any, document: PolicyDocument) -> None:
    before = patcher.clone()
    before.add_patches(LORA)
    after = apply(patcher, document).clone()
    after.add_patches(LORA)
    for model in (apply(before, document), after):
        with pytest.raises(CalibrationMismatch, match=r"adapters: .* none; this MODEL has LoRA on 1 weights"):
            run(model, document)


def test_a_policy_for_any_lora_runs_with_one_and_the_weights_are_told_without_it(
    wan: Any, patcher: Any, compiled_for: Callable[..., PolicyDocument]
) -> None:
    document = compiled_for(wan, [not row for row in ROWS], ROWS, adapters="any")
    styled = patcher.clone()
    styled.add_patches(LORA)
    plain, with_lora = run(apply(patcher, document), document), run(apply(styled, document), document)
    assert not torch.allclose(plain, with_lora)
    # The LoRA is merged into the weights in memory now.
    fresh = engine_model(wan.transformer)
    fresh.add_patches(LORA)
    run(fresh, document)
    assert torch.equal(run(apply(fresh, document), document), with_lora)


@pytest.fixture
def lora(tmp_path: Path, wan: Any) -> Path:
    """A LoRA file with the names of Wan's own weights, which both diffusers and the engine read."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for block in range(2):
        name = f"diffusion_model.blocks.{block}.self_attn.q"
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, 32, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(32, 2, generator=generator)
    save_file(tensors, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


def listing(document: PolicyDocument, path: Path, scale: float | None) -> PolicyDocument:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rule = AdapterRule(rule="listed", digests=[f"sha256:{digest}"])
    if scale is not None:
        rule = AdapterRule(rule="listed", scaled=[ScaledAdapter(name="style", file=digest, scale=scale)])
    return msgspec.structs.replace(document, model=msgspec.structs.replace(document.model, adapters=rule))


def test_a_listed_lora_is_told_by_its_file(patcher: Any, document: PolicyDocument, lora: Path) -> None:
    styled = load_adapter(patcher, lora, 0.5)
    plain = run(apply(patcher, document), document)
    for scale in (0.5, None):
        listed = listing(document, lora, scale)
        assert not torch.allclose(run(apply(styled, listed), listed), plain)


def test_a_listed_lora_adds_what_it_adds_in_diffusers(
    wan: Any, patcher: Any, document: PolicyDocument, lora: Path
) -> None:
    listed = listing(document, lora, 0.5)
    texts = [text(), text(2)]
    actual = run(apply(load_adapter(patcher, lora, 0.5), listed), listed)
    wan.load_lora_weights(lora, adapter_name="style")
    wan.set_adapters("style", 0.5)
    rule = msgspec.structs.replace(document.model, adapters=AdapterRule(rule="any"))
    with budc.applied(wan, msgspec.structs.replace(document, model=rule), allow_unsigned=True):
        expected = wan(
            prompt_embeds=texts[0], negative_prompt_embeds=texts[1], height=16, width=32, num_frames=5,
            latents=noise(), guidance_scale=GUIDANCE, num_inference_steps=len(ROWS), output_type="latent",
        ).frames  # fmt: skip
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_lora_with_diffusers_names_is_one_of_flux_in_both(
    flux: Any, compiled_for: Callable[..., PolicyDocument], tmp_path: Path
) -> None:
    path = write_lora(tmp_path / "flux.safetensors", flux.transformer)
    document = listing(compiled_for(flux), path, 0.5)
    words, pooled = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1)), torch.ones(1, 8)
    start = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(2))
    conditioning = [[words, {"pooled_output": pooled, "guidance": 3.5}]]
    model = apply(load_adapter(engine_model(flux.transformer), path, 0.5), document, allow_uncalibrated=True)
    with pytest.warns(UncalibratedWarning):
        actual = run(model, document, noise=start, positive=conditioning, negative=conditioning, cfg=1.0)
    flux.load_lora_weights(path, adapter_name="style")
    flux.set_adapters("style", 0.5)
    rule = msgspec.structs.replace(document.model, adapters=AdapterRule(rule="any"))
    with budc.applied(flux, msgspec.structs.replace(document, model=rule), allow_unsigned=True):
        packed = flux(
            prompt_embeds=words, pooled_prompt_embeds=pooled, height=32, width=48, guidance_scale=3.5,
            latents=flux._pack_latents(start, 1, 4, 16, 24), num_inference_steps=6, output_type="latent",
        ).images  # fmt: skip
    expected = flux._unpack_latents(packed, 32, 48, flux.vae_scale_factor)
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_lora_that_is_not_the_listed_one_is_refused_with_both(
    patcher: Any, document: PolicyDocument, lora: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(lora).items()}, other)
    listed = listing(document, lora, 0.5)
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()[:12]
    by_other_node = patcher.clone()
    by_other_node.add_patches(LORA)
    cases = {
        f"adapters: .* with style .sha256 {digest}….* at scale 0.5, this MODEL has none": patcher,
        "adapters: .* with style .* at scale 0.5, this MODEL has other.safetensors": load_adapter(
            patcher, other, 0.5
        ),
        "scale of style.safetensors: .* for 0.5, this run has 0.7; set its strength": load_adapter(
            patcher, lora, 0.7
        ),
        "other.safetensors .*, which the policy does not list": load_adapter(
            load_adapter(patcher, lora, 0.5), other, 1
        ),
        "style.safetensors is on this MODEL twice": load_adapter(load_adapter(patcher, lora, 0.5), lora, 0.5),
        "LoRA on 1 weights, and their file cannot be told; load it with the node": by_other_node,
    }
    for message, model in cases.items():
        with pytest.raises(CalibrationMismatch, match=message):
            run(apply(model, listed), listed)


def test_a_listed_lora_is_refused_where_there_is_to_be_none(
    patcher: Any, document: PolicyDocument, lora: Path
) -> None:
    with pytest.raises(
        CalibrationMismatch, match=r"adapters: .* none; this MODEL has style.safetensors; remove"
    ):
        run(apply(load_adapter(patcher, lora, 1.0), document), document)


def test_a_lora_of_another_network_is_refused(patcher: Any, tmp_path: Path) -> None:
    save_file({"transformer.x.lora_A.weight": torch.ones(1, 2)}, tmp_path / "flux.safetensors")
    with pytest.raises(
        UsageError, match=r"flux.safetensors: 1 tensors are for no weight of this MODEL, a WanModel"
    ):
        load_adapter(patcher, tmp_path / "flux.safetensors", 1.0)
