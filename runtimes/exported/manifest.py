"""The manifest of an ONNX export, `budc-onnx.json`: what the files of the folder are, and how its graphs are called.

    DIR/budc-onnx.json                     this manifest
        transformer/compute.onnx           velocity and trunk residual
        transformer/reuse.onnx             takes the predicted residual
        transformer/reuse_terms.onnx       predicts the residual from up to three, and goes on as reuse does
        transformer/weights.onnx.data      the weights of all three, each tensor once
        transformer_2/…                    the same of a second denoiser, where the model has one
        text_encoder/model.onnx(.data)     token ids to embeddings, all encoders together
        vae_decoder/model.onnx(.data)      latents, as the scheduler leaves them, to frames in 0..1
        tokenizer*/tokenizer.json          for the `tokenizers` package
        scheduler/scheduler_config.json    as the original model has it

The exporter writes it and runtimes read it. Importing this module imports neither torch nor onnx. A manifest proves
nothing by itself; the artifact lists its digest.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from budc.runtimes.exported.signatures import (
    CONDITIONS,
    INPUTS,
    SECOND,
    Graph,
    GraphName,
    Strict,
    check_signature,
)
from budc.schema import canonical
from budc.schema.errors import ArtifactError, UnsafeWeights, UnsupportedVersion
from budc.schema.fields import HexDigest, Name, Path, Pixels, Positive, Prompt, Text
from budc.schema.files import read_limited
from budc.schema.folder import resolve

MANIFEST: Final = "budc-onnx.json"
FORMAT_VERSION: Final = "1.0"
MAX_VALUES: Final = 1 << 34
"""Of one tensor; the residual of a long video has 2^29."""

Cleaning = Literal["wan", "none"]

Template = Annotated[str, Meta(max_length=4096)]
"""A part of a chat's template; has line breaks."""


class OutputShape(Strict, frozen=True, kw_only=True):
    """The size that the graphs were exported for."""

    height: Pixels
    width: Pixels
    frames: Pixels


class TextRule(Strict, frozen=True, kw_only=True):
    """How a prompt becomes `input_ids` and `attention_mask`, completely.

    The prompt is cleaned: "wan" repairs mojibake (ftfy), resolves HTML entities twice and collapses white space,
    "none" changes nothing. It is put between `before` and `after`. The tokenizer, whose file adds the special tokens,
    makes ids of it, which are truncated and padded at the end to `tokens`.
    """

    cleaning: Cleaning
    before: Template = ""
    after: Template = ""
    tokens: Annotated[int, Meta(ge=1, le=1_000_000)]
    padding_id: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    padding_token: Text
    end_id: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None
    """The token that the tokenizer's file puts at the end of a prompt; null where it puts none."""
    tokenizer: Path
    """The tokenizer's file."""


class Manifest(Strict, frozen=True, kw_only=True):
    """All that a runtime must know about an export."""

    format_version: Literal["1.0"]
    profile: Name
    family: Name
    pipeline_class: Name
    denoiser_class: Name
    dtype: Literal["float32", "float16"]
    """Type of the denoiser's and text encoders' graphs; timesteps, coefficients and the VAE are float32."""
    opset: Annotated[int, Meta(ge=20, le=64)]
    versions: Annotated[Mapping[Name, Text], Meta(max_length=32)]
    """Package → version, of the packages that made the export."""
    shape: OutputShape
    latents: Annotated[Sequence[Positive], Meta(min_length=3, max_length=4)]
    """(channels, [frames,] rows, columns): the shape in which the noise of one sample is drawn."""
    packed: bool = False
    """Whether denoiser and decoder take latents in 2 × 2 cells, (rows · columns / 4, 4 · channels)."""
    text: TextRule
    """How `input_ids` and `attention_mask` are made."""
    pooled_text: TextRule | None = None
    """How `pooled_input_ids` are made; null where the text encoders take none."""
    guidance: float | None = None
    """The guidance scale that is built into the denoiser's graphs; null where the network does not take it."""
    branches: Annotated[Sequence[Name], Meta(min_length=1, max_length=16)]
    """Guidance branches, in the order in which they are batched."""
    negative_prompt: Prompt
    scheduler: Path
    """File of the original model's scheduler configuration; a policy brings its own."""
    graphs: Mapping[GraphName, Graph]
    files: Annotated[Mapping[Path, HexDigest], Meta(min_length=1, max_length=4096)]
    """sha256 of every file of the folder except the manifest."""

    @property
    def denoisers(self) -> tuple[str, ...]:
        """The denoisers by their names in the pipeline, in the order in which they run; of one class."""
        return ("transformer", "transformer_2") if SECOND.keys() <= self.graphs.keys() else ("transformer",)

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of one sample's latents as denoiser and decoder take them."""
        if not self.packed:
            return tuple(self.latents)
        channels, rows, columns = self.latents
        return (rows // 2) * (columns // 2), 4 * channels

    @property
    def text_tokens(self) -> int:
        """How many tokens of a prompt the denoiser takes; without those of the template before it."""
        shapes = {spec.name: spec.shape for spec in self.graphs["compute"].inputs}
        _, tokens, *_ = (*shapes.get("encoder_hidden_states", ()), None, None)
        return self.text.tokens if tokens is None else tokens

    @property
    def conditions(self) -> tuple[str, ...]:
        """The outputs of the text encoders that the denoiser takes."""
        inputs = {spec.name for spec in self.graphs["compute"].inputs}
        return tuple(name for name in CONDITIONS if name in inputs)


def variant_name(manifest: Manifest) -> str:
    """Return the name under which a policy lists the export."""
    return f"onnx-{manifest.dtype}"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of `budc-onnx.json`, checked by reading them back. Raises UnsafeWeights."""
    data = canonical.encode(msgspec.to_builtins(manifest))
    decode_manifest(data)
    return data


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`.

    Raises:
        UnsafeWeights: it is not strict JSON, a field is unknown, missing or out of bounds, a graph is missing or
            has another signature, or a file is not listed.
        UnsupportedVersion: the manifest has another version.
    """
    try:
        value = canonical.parse(data, what=MANIFEST)
    except ArtifactError as error:
        raise _malformed(str(error)) from error
    version = value.get("formatVersion") if isinstance(value, dict) else None
    if isinstance(version, str) and version != FORMAT_VERSION:
        raise UnsupportedVersion(
            f"{MANIFEST}: formatVersion is {version}, this release reads {FORMAT_VERSION}",
            remedy="upgrade budc, or export the model again with this release",
        )
    try:
        manifest = msgspec.convert(value, type=Manifest)
    except msgspec.ValidationError as error:
        raise _malformed(f"{MANIFEST}: {error}") from None
    _check(manifest)
    return manifest


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Return the manifest of an export folder.

    Raises:
        WeightsMissing: the folder has no manifest.
        UnsafeWeights: the manifest is a link out of the folder, too long, or malformed (`decode_manifest`).
        UnsupportedVersion: the manifest has another version.
    """
    try:
        data = read_limited(resolve(folder, MANIFEST), canonical.MAX_BYTES)
    except ArtifactError as error:
        raise _malformed(str(error)) from error
    return decode_manifest(data)


def _check(manifest: Manifest) -> None:
    needed = INPUTS.keys() | (SECOND.keys() if SECOND.keys() & manifest.graphs.keys() else set())
    if missing := sorted(needed - manifest.graphs.keys()):
        raise _malformed(f"{MANIFEST}: graphs has no {missing[0]}")
    for name, graph in manifest.graphs.items():
        try:
            check_signature(name, graph)
        except ValueError as error:
            raise _malformed(f"{MANIFEST}: {error}") from None
    for second, first in SECOND.items():
        other, like = manifest.graphs.get(second), manifest.graphs[first]
        if other is not None and (other.inputs, other.outputs) != (like.inputs, like.outputs):
            raise _malformed(f"{MANIFEST}: {second} is not called as {first} is")
    returned = {spec.name for spec in manifest.graphs["text_encoder"].outputs}
    if lacking := sorted(set(manifest.conditions) - returned):
        raise _malformed(f"{MANIFEST}: compute takes {lacking[0]}, which text_encoder does not return")
    ids = {spec.name for spec in manifest.graphs["text_encoder"].inputs}
    if ("pooled_input_ids" in ids) != (manifest.pooled_text is not None):
        raise _malformed(f"{MANIFEST}: pooledText and text_encoder do not agree about pooled_input_ids")
    if manifest.packed and (len(manifest.latents) != 3 or any(size % 2 for size in manifest.latents[1:])):
        raise _malformed(f"{MANIFEST}: latents {list(manifest.latents)} cannot be packed in 2 × 2 cells")
    _check_sizes(manifest)
    tokenizers = [rule.tokenizer for rule in (manifest.text, manifest.pooled_text) if rule is not None]
    for path in (*tokenizers, manifest.scheduler, *(g.file for g in manifest.graphs.values())):
        if path not in manifest.files:
            raise _malformed(f"{MANIFEST}: {path} is used, but not listed under files")


def _check_sizes(manifest: Manifest) -> None:
    """Refuse tensors that no machine holds, and text encoders that take other tokens than the tokenizers make."""
    specs = [spec for graph in manifest.graphs.values() for spec in (*graph.inputs, *graph.outputs)]
    shapes = [("latents", manifest.latents), *((spec.name, [n or 1 for n in spec.shape]) for spec in specs)]
    for name, shape in shapes:
        if math.prod(shape) > MAX_VALUES:
            raise _malformed(f"{MANIFEST}: {name} has more than {MAX_VALUES} values")
    for spec in manifest.graphs["text_encoder"].inputs:
        rule = manifest.pooled_text if spec.name == "pooled_input_ids" else manifest.text
        if rule is not None and tuple(spec.shape[1:]) != (rule.tokens,):
            raise _malformed(
                f"{MANIFEST}: {spec.name} is {list(spec.shape)}, but prompts have {rule.tokens} tokens"
            )


def _malformed(message: str) -> UnsafeWeights:
    return UnsafeWeights(
        message, remedy="fetch the export again, or export the model again with `budc export onnx`"
    )
