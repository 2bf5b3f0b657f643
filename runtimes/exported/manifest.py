"""The manifest of an ONNX export, `budc-onnx.json`: what each file of the folder is, and how it is called.

    DIR/budc-onnx.json                     this manifest
        transformer/compute.onnx           velocity and trunk residual
        transformer/reuse.onnx             takes the predicted residual
        transformer/reuse_terms.onnx       the same, predicting it from up to three residuals in the graph
        transformer/weights.onnx.data      the weights of all three, each tensor once
        text_encoder/model.onnx(.data)     token ids to what the denoiser is given, all encoders together
        vae_decoder/model.onnx(.data)      latents, as the scheduler leaves them, to frames in 0..1
        tokenizer*/tokenizer.json          for the `tokenizers` package
        scheduler/scheduler_config.json    as the original model has it

The exporter writes it, runtimes read it; it imports neither torch nor onnx. A manifest proves nothing by
itself: the artifact lists its digest.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from budc.schema import canonical
from budc.schema.errors import ArtifactError, UnsafeWeights, UnsupportedVersion
from budc.schema.files import read_limited
from budc.schema.folder import resolve
from budc.schema.policy import HexDigest, Name, Path, Pixels, Positive, Text

MANIFEST: Final = "budc-onnx.json"
FORMAT_VERSION: Final = "1.0"
TERMS: Final = 3
"""Residuals that `reuse_terms` combines; a policy with fewer leaves the last ones at coefficient 0."""

GraphName = Literal["compute", "reuse", "reuse_terms", "text_encoder", "vae_decoder"]
DType = Literal["float32", "float16", "int64"]

Cleaning = Literal["wan", "none"]

CONDITIONS: Final = ("encoder_hidden_states", "pooled_projections")
"""What text encoders return and the denoiser takes. Not every model pools."""
_LATENTS = ("hidden_states", "timestep", *CONDITIONS)
_RESIDUALS = tuple(f"residual_{index}" for index in range(TERMS))
INPUTS: Final[Mapping[GraphName, tuple[str, ...]]] = {
    "compute": _LATENTS,
    "reuse": (*_LATENTS, "residual"),
    "reuse_terms": (*_LATENTS, *_RESIDUALS, "coefficients"),
    "text_encoder": ("input_ids", "attention_mask", "pooled_input_ids"),
    "vae_decoder": ("latents",),
}
"""What each graph is called with, in this order; an input that the model does not use is left out."""

OUTPUTS: Final[Mapping[GraphName, tuple[str, ...]]] = {
    "compute": ("velocity", "residual"),
    "reuse": ("velocity",),
    "reuse_terms": ("velocity",),
    "text_encoder": CONDITIONS,
    "vae_decoder": ("video",),
}
"""What each graph returns, in this order; of the text encoders perhaps only the first."""


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Immutable, no unknown fields, camelCase in JSON."""


class TensorSpec(_Strict, frozen=True, kw_only=True):
    """One input or output of a graph."""

    name: Name
    dtype: DType
    shape: Annotated[Sequence[Positive | None], Meta(min_length=1, max_length=8)]
    """Fixed extents; null is the batch."""


class Graph(_Strict, frozen=True, kw_only=True):
    """One graph: its file, and how it is called."""

    file: Path
    inputs: Annotated[Sequence[TensorSpec], Meta(min_length=1, max_length=16)]
    outputs: Annotated[Sequence[TensorSpec], Meta(min_length=1, max_length=16)]


class OutputShape(_Strict, frozen=True, kw_only=True):
    """The size that the graphs were exported for."""

    height: Pixels
    width: Pixels
    frames: Pixels


class TextRule(_Strict, frozen=True, kw_only=True):
    """How a prompt becomes `input_ids` and `attention_mask`, of which nothing else needs to be known.

    "wan": mojibake repaired (ftfy), HTML entities resolved twice, runs of white space made one blank; then the
    tokenizer, whose file adds the special tokens, cut and padded at the end to `tokens`. "none": the tokenizer alone.
    """

    cleaning: Cleaning
    tokens: Annotated[int, Meta(ge=1, le=1_000_000)]
    padding_id: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    padding_token: Text
    end_id: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None
    """The token that the tokenizer's file puts at the end of a prompt; null where it puts none."""
    tokenizer: Path
    """The tokenizer's file."""


class Manifest(_Strict, frozen=True, kw_only=True):
    """All that a runtime must know of an export."""

    format_version: Literal["1.0"]
    profile: Name
    family: Name
    pipeline_class: Name
    denoiser_class: Name
    dtype: Literal["float32", "float16"]
    """Of the denoiser's and the text encoder's graphs; timesteps, coefficients and the VAE stay in float32."""
    opset: Annotated[int, Meta(ge=20, le=64)]
    versions: Annotated[Mapping[Name, Text], Meta(max_length=32)]
    """Package → version, of what made the export."""
    shape: OutputShape
    latents: Annotated[Sequence[Positive], Meta(min_length=3, max_length=4)]
    """(channels, [frames,] rows, columns): the shape in which the noise of one sample is drawn."""
    packed: bool = False
    """Whether it then becomes 2 × 2 cells (rows · columns / 4, 4 · channels), and stays so up to the decoder."""
    text: TextRule
    """Makes `input_ids` and `attention_mask`."""
    pooled_text: TextRule | None = None
    """Makes `pooled_input_ids`, where there are."""
    guidance: float | None = None
    """The scale that is built into the denoiser's graphs, where it is an input of the network."""
    branches: Annotated[Sequence[Name], Meta(min_length=1, max_length=16)]
    """Guidance branches, in the order in which they are batched."""
    negative_prompt: Text
    scheduler: Path
    """The configuration of the model's own scheduler; a policy brings the one that it runs on."""
    graphs: Mapping[GraphName, Graph]
    files: Annotated[Mapping[Path, HexDigest], Meta(min_length=1, max_length=4096)]
    """sha256 of every file of the folder except the manifest."""

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of one sample's latents as denoiser and decoder take them."""
        if not self.packed:
            return tuple(self.latents)
        channels, rows, columns = self.latents
        return (rows // 2) * (columns // 2), 4 * channels

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the denoiser takes of what the text encoders return."""
        given = {spec.name for spec in self.graphs["compute"].inputs}
        return tuple(name for name in CONDITIONS if name in given)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of `budc-onnx.json`, checked by reading them back. Raises UnsafeWeights."""
    data = canonical.encode(msgspec.to_builtins(manifest))
    decode_manifest(data)
    return data


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`.

    Raises:
        UnsafeWeights: not strict JSON, a field is unknown, missing or out of bounds, a graph is missing or is
            not called as it should be, a file is named that is not listed.
        UnsupportedVersion: a manifest of another version.
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
        WeightsMissing: there is none.
        UnsafeWeights, UnsupportedVersion: it is a link out of the folder; see also `decode_manifest`.
    """
    try:
        data = read_limited(resolve(folder, MANIFEST), canonical.MAX_BYTES)
    except ArtifactError as error:
        raise _malformed(str(error)) from error
    return decode_manifest(data)


def _check(manifest: Manifest) -> None:
    if missing := sorted(INPUTS.keys() - manifest.graphs.keys()):
        raise _malformed(f"{MANIFEST}: graphs has no {missing[0]}")
    for name, graph in manifest.graphs.items():
        outputs, expected = [spec.name for spec in graph.outputs], list(OUTPUTS[name])
        if outputs != expected and (name != "text_encoder" or outputs != expected[:1]):
            raise _malformed(f"{MANIFEST}: {graph.file} returns {outputs}, expected {expected}")
        given = {spec.name for spec in graph.inputs}
        if [spec.name for spec in graph.inputs] != [name for name in INPUTS[name] if name in given]:
            raise _malformed(
                f"{MANIFEST}: {graph.file} takes {[spec.name for spec in graph.inputs]}, "
                f"expected {list(INPUTS[name])}"
            )
    returned = {spec.name for spec in manifest.graphs["text_encoder"].outputs}
    if lacking := sorted(set(manifest.conditions) - returned):
        raise _malformed(f"{MANIFEST}: compute takes {lacking[0]}, which text_encoder does not return")
    ids = {spec.name for spec in manifest.graphs["text_encoder"].inputs}
    if ("pooled_input_ids" in ids) != (manifest.pooled_text is not None):
        raise _malformed(f"{MANIFEST}: pooledText and text_encoder do not agree about pooled_input_ids")
    if manifest.packed and (len(manifest.latents) != 3 or any(size % 2 for size in manifest.latents[1:])):
        raise _malformed(f"{MANIFEST}: latents {list(manifest.latents)} cannot be packed in 2 × 2 cells")
    tokenizers = [rule.tokenizer for rule in (manifest.text, manifest.pooled_text) if rule is not None]
    for path in (*tokenizers, manifest.scheduler, *(g.file for g in manifest.graphs.values())):
        if path not in manifest.files:
            raise _malformed(f"{MANIFEST}: {path} is named, but not listed under files")


def _malformed(message: str) -> UnsafeWeights:
    return UnsafeWeights(message, remedy="fetch the export again, or make it anew with `budc export onnx`")
