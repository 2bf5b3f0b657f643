"""Fuzzing of every parser that meets bytes from strangers: nothing but a BudcError comes out, and nothing gets another meaning.

    python tests/fuzz.py --runs 100000 --seed 1
    python tests/fuzz.py --atheris --runs 0            # coverage-guided, until it is stopped; needs the package atheris

The corpus is the attack corpus and the golden artifacts. What breaks an invariant is written to `--crashes` and ends the run with
exit code 1.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from budc.schema import canonical
from budc.schema.artifact import open_artifact
from budc.schema.attestation import read_evaluation
from budc.schema.bundle import decode_bundle, encode_bundle
from budc.schema.digests import tensor_root
from budc.schema.envelope import Envelope
from budc.schema.errors import BudcError
from budc.schema.evaluation_statement import decode_evaluation
from budc.schema.published import EVALUATION_SCHEMA, check_schema
from budc.schema.statement import encode_statement
from budc.schema.trust import Trust

HERE = Path(__file__).parent
NOBODY = Trust(keys=())
SCRATCH = Path(tempfile.mkdtemp(prefix="budc-fuzz-"))


def check_artifact(data: bytes) -> bool:
    """Open a file as an unsigned artifact; return whether it was accepted, which then is canonical and follows the schema."""
    try:
        artifact = open_artifact(data, NOBODY, allow_unsigned=True)
    except BudcError:
        return False
    assert encode_statement(artifact.document) == artifact.payload, "another meaning than its bytes"
    check_schema(artifact.payload)
    assert decode_bundle(encode_bundle(Envelope(artifact.payload))).envelope.payload == artifact.payload
    return True


def check_payload(data: bytes) -> bool:
    """The same for a payload, in a bundle that is in order."""
    if len(data) > canonical.MAX_BYTES // 2:
        return False
    return check_artifact(encode_bundle(Envelope(data)))


def check_weights(data: bytes) -> bool:
    """Read a file as safetensors; what is accepted has the same root as ever."""
    path = SCRATCH / "w.safetensors"
    path.write_bytes(data)
    try:
        root = tensor_root([path])
    except BudcError:
        return False
    assert root == tensor_root([path])
    return True


def check_trust(data: bytes) -> bool:
    """Read a file as a trust file; whatever is accepted has a key, and asks for at least one publisher's."""
    path = SCRATCH / "trust.toml"
    path.write_bytes(data)
    try:
        trust = Trust.load(path)
    except BudcError:
        return False
    assert trust.keys or trust.evaluators
    assert trust.evaluators or not trust.required
    assert 1 <= trust.threshold <= max(1, len(trust.keys))
    return True


def check_evaluation(data: bytes) -> bool:
    """Read a file as an evaluation, signed or not; whatever is accepted is canonical and follows the schema."""
    try:
        evaluation = read_evaluation(data)
    except BudcError:
        return False
    if len(evaluation.payload) <= canonical.MAX_BYTES:
        check_schema(evaluation.payload, EVALUATION_SCHEMA)
        assert decode_evaluation(evaluation.payload) == evaluation.document, "another meaning than its bytes"
    return True


TARGETS: dict[str, Callable[[bytes], bool]] = {
    "artifact": check_artifact,
    "payload": check_payload,
    "weights": check_weights,
    "trust": check_trust,
    "evaluation": check_evaluation,
}
SPLICES = [
    b"null", b"true", b"-0", b"1e999", b"NaN", b"[]", b"{}", b'""', b"\\u0000", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"9" * 40,
    b"[" * 40, b'{"a":', b",", b":", b"\n", b"\x00", b"../", b"\x1b[", b"1.0", b"1E2", b"<script>", b"\xe2\x80\xae",
]  # fmt: skip


SECONDS = 3.0
"""Processor time that judging one input may take, on a slow machine; all are at most about a MiB."""
LONG = 1 << 16
GROWN: Sequence[Callable[[int], bytes]] = (
    lambda size: b'\\"' * (size // 2),
    lambda size: b'"' * size,
    lambda size: b"\\" * size,
    lambda size: b"9" * size,
    lambda size: b"0." + b"1" * size,
    lambda size: b"[" * size,
    lambda size: b'{"a":' * (size // 5),
    lambda size: b".a" * (size // 2),
    lambda size: b",".join(b'"%x":0' % key for key in range(size // 8)),
    lambda size: b"\n".join(b"k%x = 0" % key for key in range(size // 10)),
)
"""Structures of so many bytes that a reader may take too long for: strings, numbers, nesting, keys."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to four edits, flips, splices, repeats, cuts, or with a large structure in them."""
    if rng.random() < 0.05:
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.choice(GROWN)(rng.choice((1000, LONG))) + data[at:]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 2, 8, 64)))
        kind = rng.randrange(4)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + rng.choice(SPLICES) + data[end:]
        elif kind == 2:
            data = data[:end] + data[at:end] * rng.randint(1, 3) + data[end:]
        else:
            data = data[:at] + data[end:]
    return data


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Return a JSON value of which one part is replaced, removed, doubled or swapped with another."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        rest = {name: item for name, item in value.items() if name != key}
        kind = rng.random()
        if kind < 0.05:
            return rest
        if kind < 0.1:
            return rest | {rng.choice(("", "x", "../x", key + "\n", key.upper())): value[key]}
        return value | {key: mutated_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.1:
            return value[:at] + value[at + 1 :]
        if kind < 0.2:
            return value[: at + 1] + value[at:]
        return [*value[:at], mutated_value(value[at], rng), *value[at + 1 :]]
    other: Sequence[Any] = (
        None, True, False, 0, 1, -1, 2, 1000, 10**16, 0.5, 1e300, -1e-300, "", "x", "a\n", "\x1b[0m", "../x", "/x", [], {}, [0], {"a": 1},
        "0" * 64, "sha256:" + "0" * 64, "2026-02-30T00:00:00Z", [True], [[1.0]], "😀" * 600,
        2**53 - 1, -(2**53) + 1, 1.7976931348623157e308, 5e-324,
    )  # fmt: skip
    if rng.random() < 0.02:
        return grown_value(rng)
    return rng.choice([*other, value * 2 if isinstance(value, str) else value])


def grown_value(rng: random.Random) -> Any:
    """Return a large JSON value: a long string, many keys, a long list, or deep nesting."""
    size = rng.choice((100, LONG // 8))
    deep: Any = 0
    for _ in range(rng.choice((31, 33, 300))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return rng.choice(
        (
            rng.choice(('"', "\\", "a/", "😀")) * size,
            {f"k{key:x}": 0 for key in range(size)},
            [0.1] * size,
            deep,
        )
    )


def corpus() -> dict[str, list[bytes]]:
    """Return for each target what mutation starts from."""
    # Golden artifacts are few and valid: they are taken as often as the many that are refused as they are.
    files = [
        *sorted((HERE / "golden").glob("v*/*.budc.json")) * 12,
        *sorted((HERE / "attacks" / "artifacts").iterdir()),
    ]
    artifacts = [data for path in files if len(data := path.read_bytes()) < 100_000]
    evaluations = [path.read_bytes() for path in sorted((HERE / "attacks" / "evaluations").iterdir())]
    payloads = payloads_of(artifacts)
    predicates = []
    for payload in payloads_of(evaluations):
        try:
            predicates.append(canonical.encode(json.loads(payload)["predicate"]))
        except (ValueError, TypeError, BudcError):
            continue
    header = b'{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}'
    key = (HERE / "golden" / "v1.0" / "ecdsa.pub").read_text()
    trust = f'threshold = 1\ndenied = ["sha256:{"0" * 64}"]\n[minimum-revision]\n"a.b" = 3\n[[keys]]\nname = "r"\npem = """\n{key}"""\nfamilies = ["wan"]\n'
    return {
        "artifact": artifacts,
        "payload": payloads,
        "weights": [len(header).to_bytes(8, "little") + header + bytes(9)],
        "trust": [
            trust.encode(),
            *(path.read_bytes() for path in sorted((HERE / "attacks" / "trust").iterdir())),
        ],
        "evaluation": [data for data in evaluations if len(data) < 100_000] + predicates * 4,
    }


def payloads_of(files: Sequence[bytes]) -> list[bytes]:
    """Return the payloads of those files that are bundles."""
    payloads = []
    for data in files:
        try:
            payloads.append(base64.b64decode(json.loads(data)["dsseEnvelope"]["payload"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return payloads


def timed(target: Callable[[bytes], bool], data: bytes) -> bool:
    """Return what `target` does. Raises AssertionError if it takes longer than any input may."""
    start = time.process_time()
    accepted = target(data)
    taken = time.process_time() - start
    assert taken < SECONDS, f"took {taken:.1f} s for {len(data)} bytes, {SECONDS:g} s are allowed"
    return accepted


def fuzz(runs: int, seed: int, crashes: Path) -> int:
    """Mutate at random `runs` times; return 1 if an invariant was broken."""
    rng, seeds = random.Random(seed), corpus()
    accepted = dict.fromkeys(TARGETS, 0)
    for run in range(runs):
        target = rng.choice(sorted(TARGETS))
        data = rng.choice(seeds[target])
        if target in ("payload", "evaluation") and rng.random() < 0.7:
            try:
                data = canonical.encode(mutated_value(json.loads(data), rng))
            except (ValueError, RecursionError, BudcError):
                continue
        else:
            data = mutated(data, rng)
        try:
            accepted[target] += timed(TARGETS[target], data)
        except Exception as error:
            crashes.mkdir(parents=True, exist_ok=True)
            path = crashes / f"{target}-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            print(f"run {run}: {target}: {type(error).__name__}: {error}\n  input in {path}", file=sys.stderr)
            return 1
    print(f"{runs} runs, seed {seed}; accepted: {', '.join(f'{k} {v}' for k, v in accepted.items())}")
    return 0


def fuzz_guided(runs: int) -> None:
    """Let atheris choose the inputs; the first byte chooses the target."""
    import atheris

    atheris.instrument_all()
    names = sorted(TARGETS)

    def check(data: bytes) -> None:
        if data:
            timed(TARGETS[names[data[0] % len(names)]], data[1:])

    folder = SCRATCH / "corpus"
    folder.mkdir()
    for name, items in corpus().items():
        for index, data in enumerate(items):
            (folder / f"{name}-{index}").write_bytes(bytes([names.index(name)]) + data)
    atheris.Setup([sys.argv[0], f"-runs={runs or -1}", str(folder)], check)
    atheris.Fuzz()


def main() -> int:
    """Read the arguments and fuzz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", type=Path, default=Path("crashes"))
    parser.add_argument("--atheris", action="store_true", help="coverage-guided, where atheris is installed")
    arguments = parser.parse_args()
    if arguments.atheris:
        fuzz_guided(arguments.runs)
        return 0
    return fuzz(arguments.runs, arguments.seed, arguments.crashes)


if __name__ == "__main__":
    sys.exit(main())
