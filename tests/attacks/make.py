"""Makes the attack corpus: files and folders that a reader must refuse, each with the error that it gets.

    python tests/attacks/make.py [FOLDER]          # default: this folder; weights/ and models/ are not kept in git

Every case is a change to one valid artifact (a golden one, bound to a small model) or to that model's folder, and is one
entry in `attack_corpus`. Keys are Ed25519, so the same script makes the same bytes. Nothing of the
package is used here, so that the reader is not tested against itself.

FOLDER/artifacts/NAME.budc.json     opened with FOLDER/trust/TRUST.toml
FOLDER/evaluations/NAME.evaluation.json   beside FOLDER/valid.budc.json, with FOLDER/trust/TRUST.toml
FOLDER/trust-files/NAME.toml         read as a trust file
FOLDER/weights/NAME.safetensors     read for its tensors
FOLDER/models/NAME/                 checked against FOLDER/valid.budc.json
FOLDER/expected.json                for each: error class, trust file, whether unsigned ones are allowed, and why
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attack_corpus.additions import conditions, further_shapes, networks, origins, versions
from attack_corpus.evaluations import as_policies, evaluators, figures, kinds, settings, texts
from attack_corpus.experts import experts
from attack_corpus.forge import MODEL, Case, policy, statement
from attack_corpus.models import models, weights
from attack_corpus.reports import impossible, malformed
from attack_corpus.semantics import paths, repeated, sampling, semantics
from attack_corpus.signatures import ages, encodings, forged, signers, statements, thresholds
from attack_corpus.syntax import schema, syntax, values
from attack_corpus.trust_files import malformed_files, weak_keys
from attack_corpus.trusts import trusts

HERE = Path(__file__).parent


def artifacts() -> dict[str, tuple[bytes, Case]]:
    """Return name → (file, what it gets)."""
    cases: dict[str, tuple[bytes, Case]] = {}

    def add(name: str, data: bytes, error: str, why: str, **rest: Any) -> None:
        assert name not in cases, name
        cases[name] = (data, Case(error, why, **rest))

    for layer in (forged, signers, thresholds, encodings, statements, ages, syntax, values, schema, paths):
        layer(add)
    for layer in (semantics, sampling, repeated, experts):
        layer(add)
    for layer in (versions, networks, conditions, further_shapes, origins, as_policies):
        layer(add)
    for name, (data, error, why) in {**malformed(), **impossible()}.items():
        add(f"report-{name}", data, error, why)
    return cases


def evaluations() -> dict[str, tuple[bytes, Case]]:
    """Return name → (file, what it gets)."""
    cases: dict[str, tuple[bytes, Case]] = {}

    def add(name: str, data: bytes, error: str, why: str, *, trust: str = "evaluator", **rest: Any) -> None:
        assert name not in cases, name
        cases[name] = (data, Case(error, why, trust=trust, **rest))

    for layer in (evaluators, kinds, texts, figures, settings):
        layer(add)
    return cases


def make(folder: Path) -> None:
    """Write the whole corpus into `folder`."""
    parts = ("artifacts", "evaluations", "trust-files", "weights", "models")
    expected: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for part in (*expected, "trust"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    for name, text in trusts().items():
        (folder / "trust" / f"{name}.toml").write_text(text, encoding="utf-8")
    (folder / "valid.budc.json").write_bytes(policy(statement()))
    for name, (data, case) in artifacts().items():
        (folder / "artifacts" / f"{name}.budc.json").write_bytes(data)
        expected["artifacts"][name] = asdict(case)
    for name, (data, case) in evaluations().items():
        (folder / "evaluations" / f"{name}.evaluation.json").write_bytes(data)
        expected["evaluations"][name] = asdict(case)
    for name, (data, case) in {**weak_keys(), **malformed_files()}.items():
        (folder / "trust-files" / f"{name}.toml").write_bytes(data)
        expected["trust-files"][name] = asdict(case)
    for name, (data, case) in weights().items():
        (folder / "weights" / f"{name}.safetensors").write_bytes(data)
        expected["weights"][name] = asdict(case)
    for name, (change, case) in {"good": (lambda _: None, None), **models()}.items():
        for relative, content in MODEL.items():
            (folder / "models" / name / relative).parent.mkdir(parents=True, exist_ok=True)
            (folder / "models" / name / relative).write_bytes(content)
        change(folder / "models" / name)
        if case is not None:
            expected["models"][name] = asdict(case)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
