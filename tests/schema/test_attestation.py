"""Signed evaluations: what is written, what is believed, and what does not fit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from budc.schema import canonical
from budc.schema.artifact import read, seal
from budc.schema.attestation import add_signature, open_evaluation, read_evaluation, seal_evaluation
from budc.schema.errors import (
    ArtifactTooLarge,
    Denied,
    NotEvaluated,
    SchemaViolation,
    SemanticsViolation,
    Unsigned,
    UntrustedKey,
    UsageError,
)
from budc.schema.evaluation import plain_file
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.signers import KeyPair, Signer, generate_key, load_signer
from budc.schema.trust import Trust

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def evaluators(trust: Trust) -> Trust:
    """Trust in the key of `signer` as an evaluator's, and in nobody as a publisher."""
    return replace(trust, keys=(), evaluators=trust.keys)


@pytest.fixture(scope="module")
def policy(make_document: Make) -> PolicyDocument:
    document: PolicyDocument = make_document()
    return document


@pytest.fixture(scope="module")
def policy_id(policy: PolicyDocument) -> str:
    return read(seal(policy, None)).policy_id


def test_the_statement_is_about_the_policy(
    policy: PolicyDocument, policy_id: str, make_evaluation: Make, signer: Signer, evaluators: Trust
) -> None:
    data = seal_evaluation(make_evaluation(policy), signer)
    evaluation = open_evaluation(data, policy_id, policy, evaluators)
    assert evaluation.document == make_evaluation(policy)
    assert evaluation.verified_by == evaluators.evaluators
    statement = json.loads(evaluation.payload)
    assert statement["predicateType"] == "urn:budc:evaluation:v1"
    digest = {"budc.policy.v1": policy_id.removeprefix("sha256:")}
    assert statement["subject"] == [{"name": policy.name, "digest": digest}]


def test_a_key_is_believed_in_its_own_role_alone(
    policy: PolicyDocument,
    policy_id: str,
    make_evaluation: Make,
    signer: Signer,
    trust: Trust,
    evaluators: Trust,
) -> None:
    data = seal_evaluation(make_evaluation(policy), signer)
    with pytest.raises(UntrustedKey, match="whom you trust as a publisher and not as an evaluator"):
        open_evaluation(data, policy_id, policy, trust)
    from budc.schema.artifact import open_artifact

    with pytest.raises(UntrustedKey):
        open_artifact(seal(policy, signer), evaluators)


def test_an_evaluator_is_limited_to_families_and_can_be_denied(
    policy: PolicyDocument, policy_id: str, make_evaluation: Make, signer: Signer, evaluators: Trust
) -> None:
    data = seal_evaluation(make_evaluation(policy), signer)
    (key,) = evaluators.evaluators
    with pytest.raises(UntrustedKey, match="as an evaluator for models of the family wan"):
        open_evaluation(data, policy_id, policy, replace(evaluators, families={key.fingerprint: ("flux",)}))
    denying = replace(evaluators, denied=frozenset({read_evaluation(data).digest}))
    with pytest.raises(Denied):
        open_evaluation(data, policy_id, policy, denying)


def test_what_is_not_signed_is_read_and_not_believed(
    policy: PolicyDocument, policy_id: str, make_evaluation: Make, signer: Signer, evaluators: Trust
) -> None:
    plain = plain_file(make_evaluation(policy))
    assert read_evaluation(plain).document == make_evaluation(policy)
    with pytest.raises(Unsigned, match="the evaluation is not signed"):
        open_evaluation(plain, policy_id, policy, evaluators)
    signed = add_signature(read_evaluation(plain), signer)
    assert read_evaluation(signed).payload == read_evaluation(plain).payload
    assert open_evaluation(signed, policy_id, policy, evaluators).document == make_evaluation(policy)


def test_further_evaluators_sign_the_same_statement(
    policy: PolicyDocument,
    policy_id: str,
    make_evaluation: Make,
    signer: Signer,
    evaluators: Trust,
    tmp_path: Path,
) -> None:
    pair: KeyPair = generate_key()
    (tmp_path / "second.key").write_bytes(pair.private)
    data = seal_evaluation(make_evaluation(policy), signer)
    second = load_signer(tmp_path / "second.key")
    both = add_signature(read_evaluation(data), second)
    assert len(read_evaluation(both).signatures) == 2
    trusting = replace(evaluators, evaluators=(PublicKey.from_pem(pair.public),))
    assert open_evaluation(both, policy_id, policy, trusting).verified_by == trusting.evaluators
    alone = add_signature(read_evaluation(data), second, replace_others=True)
    assert len(read_evaluation(alone).signatures) == 1
    with pytest.raises(UsageError, match="has signed this evaluation already"):
        add_signature(read_evaluation(both), second)


def test_an_evaluation_is_of_one_policy_in_its_setting(
    policy: PolicyDocument, make_document: Make, make_evaluation: Make, signer: Signer, evaluators: Trust
) -> None:
    def refused(evaluation: object) -> str:
        data = seal_evaluation(evaluation, signer)  # type: ignore[arg-type]
        with pytest.raises(NotEvaluated) as error:
            open_evaluation(data, read(seal(policy, None)).policy_id, policy, evaluators)
        return str(error.value)

    assert "another one or another revision" in refused(make_evaluation(make_document(revision=2)))
    good = make_evaluation(policy)
    calibrated = good.settings[0]
    for field, value in {
        "scheduler": "UniPCMultistepScheduler",
        "config_digest": "sha256:" + "0" * 64,
        "guidance": 1.0,
        "shape": msgspec.structs.replace(policy.shape, height=32),
        "prompts": msgspec.structs.replace(calibrated.prompts, digest=policy.quality.calibration.digest),
    }.items():
        other = msgspec.structs.replace(calibrated, **{field: value})
        said = refused(msgspec.structs.replace(good, settings=[other]))
        assert "another" in said or "searched on" in said
    cheaper = msgspec.structs.replace(calibrated.methods[0], nfe=2.0)
    other = msgspec.structs.replace(calibrated, methods=[cheaper, *calibrated.methods[1:]])
    assert "2 evaluations" in refused(msgspec.structs.replace(good, settings=[other]))


def test_what_no_measurement_gives_is_not_signed(
    policy: PolicyDocument, make_evaluation: Make, signer: Signer
) -> None:
    good = make_evaluation(policy)
    calibrated, (own, full) = good.settings[0], good.settings[0].methods

    def refused(**fields: object) -> str:
        setting = msgspec.structs.replace(calibrated, **fields)
        with pytest.raises(SemanticsViolation) as error:
            seal_evaluation(msgspec.structs.replace(good, settings=[setting]), signer)
        return str(error.value)

    def with_metric(**fields: object) -> object:
        return msgspec.structs.replace(
            own, metrics=[own.metrics[0], msgspec.structs.replace(own.metrics[1], **fields)]
        )

    assert "mean 33" in refused(methods=[with_metric(mean=33.0)])
    assert "worst is 34" in refused(methods=[with_metric(worst=34.0)])
    assert "neither end" in refused(methods=[with_metric(worst=29.0)])
    assert "4 values" in refused(methods=[with_metric(samples=3)])
    assert "5 samples of 4" in refused(methods=[with_metric(samples=5)])
    assert "says nothing of the policy" in refused(methods=[full])
    assert "has policy twice" in refused(methods=[own, own])
    assert "a network latents" in refused(shape=None)
    assert "a network latents" in refused(latents=[2, 3])
    assert "5 evaluations" in refused(methods=[own, msgspec.structs.replace(full, nfe=5.0)])
    unknown = msgspec.structs.replace(own, samples={"ssim": [1.0]})
    assert "none of the metrics" in refused(methods=[unknown])
    with pytest.raises(SemanticsViolation, match="has calibrated twice"):
        seal_evaluation(msgspec.structs.replace(good, settings=[calibrated, calibrated]), signer)


def test_what_does_not_fit_is_refused_with_a_remedy_and_a_summary_fits(
    policy: PolicyDocument, make_evaluation: Make, signer: Signer, policy_id: str, evaluators: Trust
) -> None:
    values = [30 + index / 7 for index in range(16000)]
    large = make_evaluation(policy, values)
    further = msgspec.structs.replace(large.settings[0], name="guidance=3")
    large = msgspec.structs.replace(large, settings=[*large.settings, further])
    with pytest.raises(ArtifactTooLarge) as refused:
        seal_evaluation(large, signer)
    assert "--summary" in refused.value.remedy
    data = seal_evaluation(large.summary(), signer)
    assert len(data) < canonical.MAX_BYTES / 100
    summary = open_evaluation(data, policy_id, policy, evaluators).document
    assert summary.settings[0].methods[0].metrics == large.settings[0].methods[0].metrics


def test_a_field_that_is_spelled_out_empty_is_refused(policy: PolicyDocument, make_evaluation: Make) -> None:
    from budc.schema.evaluation_statement import decode_evaluation

    statement = json.loads(read_evaluation(plain_file(make_evaluation(policy))).payload)
    statement["predicate"]["notMeasured"] = []
    with pytest.raises(SchemaViolation, match="leave such a field out"):
        decode_evaluation(canonical.encode(statement))
