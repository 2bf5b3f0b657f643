"""The trust files that artifacts of the corpus are opened with."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attack_corpus.evaluations import evaluation
from attack_corpus.forge import (
    P256,
    SECOND,
    TRUSTED,
    payload_of,
    statement,
)


def pem(key: Any) -> str:
    """Return the public half as PEM."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def trusts() -> dict[str, str]:
    """Return name → trust file."""

    def entry(key: Any, more: str = "") -> str:
        return f'[[keys]]\npem = """\n{pem(key)}"""\n{more}'

    evaluated = "sha256:" + hashlib.sha256(payload_of(evaluation())).hexdigest()
    evaluator, required = 'roles = ["evaluator"]\n', 'require-evaluation = "psnr>=30,n>=4"\n'
    identity = "sha256:" + hashlib.sha256(payload_of(statement())).hexdigest()
    return {
        "default": entry(TRUSTED),
        "ecdsa": entry(P256),
        "two": "threshold = 2\n" + entry(TRUSTED) + entry(SECOND),
        "family": entry(TRUSTED, 'families = ["flux"]\n'),
        "no-family": entry(TRUSTED, "families = []\n"),
        "minimum": "[minimum-revision]\nattacked = 2\n" + entry(TRUSTED),
        "evaluator": required + entry(TRUSTED) + entry(SECOND, evaluator),
        "evaluator-family": required + entry(TRUSTED) + entry(SECOND, evaluator + 'families = ["flux"]\n'),
        "evaluation-denied": f'denied = ["{evaluated}"]\n'
        + required
        + entry(TRUSTED)
        + entry(SECOND, evaluator),
        "denied": f'denied = ["{identity}"]\n' + entry(TRUSTED),
    }
