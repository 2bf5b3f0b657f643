"""Format 1.1: what it added is found, versioned, sealed and read back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from format_additions import ADDED, Change, further, network, with_negative
from msgspec.structs import replace

from budc.schema import canonical
from budc.schema.additions import additions, at_lowest_version, check_fields, lowest_version
from budc.schema.artifact import read, seal
from budc.schema.digests import find_variant
from budc.schema.errors import SchemaViolation, SemanticsViolation, UnsupportedModel, UnsupportedVersion
from budc.schema.policy import ConditioningImage, PolicyDocument
from budc.schema.statement import decode_statement, encode_statement

MakeDocument = Callable[..., PolicyDocument]


@pytest.fixture
def document(make_document: MakeDocument) -> PolicyDocument:
    return make_document()


@pytest.mark.parametrize("name", ADDED)
def test_what_needs_format_1_1_is_written_as_such_and_read_back(document: PolicyDocument, name: str) -> None:
    change, added = ADDED[name]
    new = change(document)
    assert (additions(new), lowest_version(new)) == (added, "1.1")
    artifact = read(seal(new, None))
    assert artifact.document == replace(new, schema_version="1.1")
    assert encode_statement(artifact.document) == artifact.payload


@pytest.mark.parametrize("name", ADDED)
def test_a_document_of_1_0_has_nothing_of_1_1(document: PolicyDocument, name: str) -> None:
    change, added = ADDED[name]
    with pytest.raises(SchemaViolation, match=rf"schemaVersion is 1\.0, but {added[0]} is of format 1.1"):
        encode_statement(change(document))


def test_a_document_without_anything_new_is_written_as_1_0(document: PolicyDocument) -> None:
    newer = replace(document, schema_version="1.1")
    assert (additions(newer), at_lowest_version(newer)) == ((), document)
    assert seal(newer, None) == seal(document, None)


def test_a_document_of_1_1_without_anything_new_is_read(document: PolicyDocument) -> None:
    newer = replace(document, schema_version="1.1")
    assert decode_statement(encode_statement(newer)) == newer


def test_a_version_after_these_is_refused(document: PolicyDocument) -> None:
    payload = encode_statement(document).replace(b'"schemaVersion":"1.0"', b'"schemaVersion":"1.2"')
    with pytest.raises(UnsupportedVersion, match=r"schemaVersion is 1\.2, this release reads 1\.0 and 1\.1"):
        decode_statement(payload)


OF_PIPELINES: dict[str, Change] = {
    "model.profile": lambda d: replace(d, model=replace(d.model, profile="wan")),
    "model.pipelineClass": lambda d: replace(d, model=replace(d.model, pipeline_class="WanPipeline")),
    "sampler.negativePrompt": with_negative,
    "furtherShapes": further,
    "images": lambda d: replace(d, images=[ConditioningImage(role="reference")]),
}


@pytest.mark.parametrize("name", [*OF_PIPELINES, "shape"])
def test_a_network_has_nothing_that_only_a_pipeline_has(document: PolicyDocument, name: str) -> None:
    bare = replace(network(document), schema_version="1.1")
    check_fields(bare)
    changed = replace(bare, shape=document.shape) if name == "shape" else OF_PIPELINES[name](bare)
    with pytest.raises(SchemaViolation, match=rf"{name} is set, but a network \(model.kind\) has none"):
        check_fields(changed)


MISSING: dict[str, Change] = {
    "model.profile": lambda d: replace(d, model=replace(d.model, profile=None)),
    "model.pipelineClass": lambda d: replace(d, model=replace(d.model, pipeline_class=None)),
    "model.variants": lambda d: replace(d, model=replace(d.model, variants=[])),
    "shape": lambda d: replace(d, shape=None),
}


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_pipeline_has_all_that_it_needs(document: PolicyDocument, name: str, version: Any) -> None:
    with pytest.raises(SchemaViolation, match=rf"{name} is missing, which the policy of a pipeline needs"):
        check_fields(MISSING[name](replace(document, schema_version=version)))


def test_a_network_without_files_is_the_subject_by_its_tensor_root(
    document: PolicyDocument, tmp_path: Any
) -> None:
    payload = read(seal(network(document, variants=[]), None)).payload
    statement = json.loads(payload)
    assert statement["subject"] == [{"digest": {"budc.tensors.v1": "1" * 64}, "name": "transformer"}]
    for subject in ([], [{"digest": {"sha256": "1" * 64}, "name": "transformer"}], statement["subject"] * 2):
        with pytest.raises((SemanticsViolation, SchemaViolation), match="subject"):
            decode_statement(canonical.encode(statement | {"subject": subject}))
    with pytest.raises(UnsupportedModel, match="no files"):
        find_variant(tmp_path, [])


def test_a_network_says_nothing_of_a_pipeline(document: PolicyDocument) -> None:
    with pytest.raises(UnsupportedModel, match="a policy for a network without a pipeline"):
        network(document).pipeline()


def test_the_shape_of_a_size_that_is_listed(document: PolicyDocument) -> None:
    pipeline = further(document).pipeline()
    assert (pipeline.profile, pipeline.pipeline_class) == ("wan", "WanPipeline")
    assert pipeline.shape == document.shape == pipeline.shape_of(9, 64, 64)
    other = pipeline.shape_of(9, 32, 32)
    assert (other.height, other.width, other.frames, other.text_tokens) == (32, 32, 9, 32)
    assert pipeline.shape_of(9, 16, 16) == document.shape
