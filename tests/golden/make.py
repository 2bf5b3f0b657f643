"""Makes the golden artifacts of format 1.1: python tests/golden/make.py NEW_FOLDER

They are built on the document of `v1.0/every-field.budc.json`. Keys are made here and their private halves forgotten, so a second
run makes other files: what is in `v1.1` stays, and a later version gets a script and a folder of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from artifact_meaning import meaning

from budc.schema import envelope as dsse
from budc.schema.additions import additions
from budc.schema.artifact import read, seal
from budc.schema.bundle import encode_bundle
from budc.schema.policy import (
    AdapterRule,
    BranchPolicy,
    BranchWeight,
    ConditioningImage,
    DenoiserBinding,
    Expert,
    FurtherShape,
    NegativePrompt,
    Policy,
    PolicyDocument,
    Quantization,
    ScaledAdapter,
    Target,
)
from budc.schema.statement import encode_statement

HERE = Path(__file__).parent
EVALUATION = "sha256:" + "e" * 64


def documents() -> dict[str, PolicyDocument]:
    """Return name → document."""
    old = read(HERE / "v1.0" / "every-field.budc.json").document
    plain = replace(old, schema_version="1.1", model=replace(old.model, adapters=AdapterRule(rule="none")))
    model = replace(plain.model, kind="network", profile=None, pipeline_class=None)
    network = replace(plain, model=model, shape=None)
    made = {
        "nothing-new": plain,
        "network": network,
        "network-by-tensor-root": replace(network, model=replace(model, variants=[])),
        "network-of-branches": weighted(network),
        "settings": replace(plain, model=described(plain)),
        "quantized": replace(plain, model=described(plain, quantization=quantized())),
        "negative-prompt": negative(plain, rule="fixed", text="色调艳丽，过曝，静态，细节模糊不清"),
        "negative-prompt-varied": negative(plain, rule="varied"),
        "shapes": replace(plain, further_shapes=further_shapes(plain)),
        "adapters": replace(plain, model=adapted(plain)),
        "images": replace(plain, images=images()),
        "trunk-output": replace(trunk_output(plain), target=target()),
        "evaluated": evaluated(plain),
        "every-addition": every_addition(plain),
    }
    return {name: replace(document, name=f"golden-{name}") for name, document in made.items()}


def weighted(document: PolicyDocument) -> PolicyDocument:
    """Return the policy of a network with its list of blocks and the weights of its guidance branches."""
    names = [name for branch in document.policy.branches for name in branch.names]
    weights = [5.0, -4.0] if len(names) == 2 else [1.0]
    guidance = [BranchWeight(branch=name, weight=w) for name, w in zip(names, weights, strict=True)]
    (denoiser,) = document.model.denoisers
    model = replace(document.model, denoisers=[replace(denoiser, blocks="blocks", guidance=guidance)])
    return replace(document, model=model)


def described(document: PolicyDocument, **fields: Any) -> Any:
    """Return the model with the settings of its denoisers, and what else is said of them."""
    config = {"num_layers": 4, "patch_size": [1, 2, 2], "eps": 1e-06, "qk_norm": "rms", "image_dim": None}
    denoisers = [replace(item, config=config, **fields) for item in document.model.denoisers]
    return replace(document.model, denoisers=denoisers)


def quantized() -> Quantization:
    """Return how a denoiser is quantised."""
    return Quantization(kind="fp8-storage", values="sha256:" + "9" * 64)


def negative(document: PolicyDocument, **prompt: Any) -> PolicyDocument:
    """Return the document with a negative prompt."""
    return replace(document, sampler=replace(document.sampler, negative_prompt=NegativePrompt(**prompt)))


def further_shapes(document: PolicyDocument) -> list[FurtherShape]:
    """Return two more shapes, the second with sigmas and predictors of its own."""
    branches = [
        BranchPolicy.of(branch.names, ([0.75] if row else [] for row in branch.predictor))
        for branch in document.policy.branches
    ]
    sigmas = [value**2 for value in document.sampler.sigmas]
    timesteps = [1000 * value for value in sigmas[:-1]]
    return [
        FurtherShape(height=32, width=48, frames=9, quality=document.quality),
        FurtherShape(
            height=48,
            width=32,
            frames=5,
            quality=document.quality,
            sigmas=sigmas,
            timesteps=timesteps,
            branches=branches,
        ),
    ]


def adapted(document: PolicyDocument) -> Any:
    """Return the model with adapters at their scales."""
    style = ScaledAdapter(name="style", file="a" * 64, scale=0.75)
    first = document.model.denoisers[0].name
    other = ScaledAdapter(
        name="motion", file="b" * 64, loaded="sha256:" + "c" * 64, scale=-0.5, denoiser=first
    )
    return replace(document.model, adapters=AdapterRule(rule="listed", scaled=[style, other]))


def images() -> list[ConditioningImage]:
    """Return an image of each role."""
    size = {"height": 32, "width": 32}
    return [
        ConditioningImage(role="first-frame"),
        ConditioningImage(role="last-frame"),
        ConditioningImage(role="reference", **size),
    ]


def trunk_output(document: PolicyDocument) -> PolicyDocument:
    """Return the document with the output of the blocks as its payload."""
    return replace(document, policy=Policy(payload="trunk-output", branches=document.policy.branches))


def target() -> Target:
    """Return an engine with all that can be said of it."""
    return Target(
        name="sglang-dpcache",
        version="0.5.4",
        settings={"attention": "sdpa", "order": 1},
        config_digest="sha256:" + "d" * 64,
    )


def evaluated(document: PolicyDocument) -> PolicyDocument:
    """Return the document with a first figure that is from an evaluation."""
    first, *others = document.quality.metrics
    metrics = [replace(first, evaluation=EVALUATION), *others]
    return replace(document, quality=replace(document.quality, metrics=metrics))


def every_addition(document: PolicyDocument) -> PolicyDocument:
    """Return the document with all that a pipeline can have, and a second denoiser."""
    full = trunk_output(evaluated(negative(document, rule="fixed", text="")))
    (branch,) = full.policy.branches
    steps = [step for step, computed in enumerate(branch.mask) if computed]
    first = document.model.denoisers[0]
    second = DenoiserBinding(
        config={"num_layers": 2},
        quantization=quantized(),
        name="transformer_2",
        class_name=first.class_name,
        tensor_root="sha256:" + "f" * 64,
        architecture=first.architecture,
    )
    plain = BranchPolicy.plain(branch.names, branch.mask)
    full = replace(full, policy=Policy(payload="trunk-output", branches=[plain]))
    expert = Expert(denoiser="transformer_2", first_step=steps[len(steps) // 2], guidance=3.0)
    return replace(
        full,
        model=replace(adapted(document), denoisers=[first, second]),
        sampler=replace(full.sampler, experts=[expert]),
        further_shapes=further_shapes(full),
        images=images(),
        target=target(),
    )


def make(folder: Path) -> None:
    """Write the golden artifacts, their public keys and what they mean."""
    folder.mkdir(parents=True)
    keys = {"ecdsa": generate_private_key(SECP256R1()), "ed25519": Ed25519PrivateKey.generate()}
    expected = {}
    for index, (name, document) in enumerate(documents().items()):
        signer = sorted(keys)[index % 2]
        path = folder / f"{name}.budc.json"
        if additions(document):
            path.write_bytes(seal(document, CryptoSigner(keys[signer])))
        else:
            # No writer of ours makes this one, which says 1.1 and needs 1.0; others may.
            payload = encode_statement(document)
            path.write_bytes(encode_bundle(dsse.sign(payload, CryptoSigner(keys[signer]))))
        artifact = read(path)
        assert artifact.document == document, name
        expected[path.name] = meaning(document, artifact.policy_id, [signer])
    for name, key in keys.items():
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
