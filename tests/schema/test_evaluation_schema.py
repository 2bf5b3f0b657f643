"""The Structs of an evaluation and its published JSON Schema are two readings of one format."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from schema_probes import DIGEST, PROBES, check_strictness, parent, places

from budc.schema import published
from budc.schema.evaluation import EvaluationDocument

Make = Callable[..., Any]
SCHEMA = published.load_schema(published.EVALUATION_SCHEMA)
VALIDATOR = Draft202012Validator(SCHEMA)


def check_same_verdict(predicate: object, where: object) -> bool:
    verdict = bool(VALIDATOR.is_valid(predicate))
    try:
        document = msgspec.convert(predicate, type=EvaluationDocument)
        accepted = bool(msgspec.to_builtins(document) == predicate)
    except msgspec.ValidationError:
        accepted = False
    assert accepted is verdict, where
    return verdict


@pytest.fixture(scope="module")
def full(make_document: Make, make_evaluation: Make) -> dict[str, Any]:
    """An evaluation with every optional field set."""
    prompt = {"rank": "worst", "prompt": 3, "text": "a circle", "full": DIGEST, "policy": DIGEST}
    kept = {"rankedBy": "psnr", "height": 64, "width": 64, "frames": 9, "lossless": True, "prompts": [prompt]}
    value: dict[str, Any] = msgspec.to_builtins(make_evaluation(make_document()))
    method = value["settings"][0]["methods"][0]
    method["fittingForwards"] = 24
    value["settings"][0]["frames"] = kept
    method["metrics"][0] |= {"unit": "dB", "geometricMean": 0.5, "p95": 2.0, "evaluation": DIGEST}
    return value


def test_the_schema_is_valid_and_strict() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    check_strictness(SCHEMA)


def test_both_agree_at_every_place(full: dict[str, Any]) -> None:
    assert check_same_verdict(full, "full")
    verdicts = set()
    for index, at in enumerate(places(full)):
        if not at:
            continue
        changed = copy.deepcopy(full)
        for value in PROBES[index % 61 :: 61]:
            parent(changed, at)[at[-1]] = value
            verdicts.add(check_same_verdict(changed, (at, value)))
    assert verdicts == {True, False}


def test_both_agree_when_a_field_is_missing_or_unknown(full: dict[str, Any]) -> None:
    optional = set()
    for at in places(full):
        changed = copy.deepcopy(full)
        if at and isinstance(at[-1], str):
            del parent(changed, at)[at[-1]]
            if check_same_verdict(changed, at):
                optional.add(at[-1])
        changed = copy.deepcopy(full)
        target = parent(changed, (*at, "")) if at else changed
        if isinstance(target, dict):
            target["later"] = 1
            assert not check_same_verdict(changed, at), at
    assert optional == {
        *("notMeasured", "fittingForwards", "samples", "latency", "peakMemory", "textTokens"),
        *("unit", "geometricMean", "p95", "evaluation", "budc", "latent-mse", "psnr"),
        *("metricWeights", "frames", "lossless", "shape"),
    }
