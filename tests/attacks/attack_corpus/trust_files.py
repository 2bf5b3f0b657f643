"""Attacks on trust files: keys that prove nothing, entries with two meanings, and text that a reader chokes on."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attack_corpus.forge import P256, SECOND, TRUSTED, Case
from attack_corpus.trusts import pem

PRIME = 2**255 - 19
TORSION = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
"""The y of two points of order 8 of Ed25519's curve."""
POINTS = {
    "identity": 1,
    "order-two": PRIME - 1,
    "order-four": 0,
    "order-eight": TORSION,
    "order-eight-negative": PRIME - TORSION,
    "identity-with-a-sign": 1 + 2**255,
    "order-four-with-a-sign": 2**255,
    "zero-not-reduced": PRIME,
    "one-not-reduced": PRIME + 1,
    "two-not-reduced": PRIME + 2,
}


def entry(text: str, more: str = "") -> str:
    """Return a `[[keys]]` entry of a PEM."""
    return f'[[keys]]\npem = """\n{text}"""\n{more}'


def point(encoded: int) -> str:
    """Return the PEM of an Ed25519 key of this encoding."""
    key = Ed25519PublicKey.from_public_bytes(encoded.to_bytes(32, "little"))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def weak_keys() -> dict[str, tuple[bytes, Case]]:
    """Return name → (trust file, what it gets) for keys that are not to be trusted."""
    private = TRUSTED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    texts = {f"key-{name}": (point(y), "a key that anybody can sign for") for name, y in POINTS.items()} | {
        "key-two-blocks": (pem(TRUSTED) + pem(SECOND), "two keys in one entry: which one is trusted?"),
        "key-two-blocks-one-broken": (pem(TRUSTED) + "-----BEGIN PUBLIC KEY-----\n", "half of a second key"),
        "key-private": (private, "a private key"),
        "key-of-another-curve": (pem(derive_private_key(7, SECP384R1())), "a curve that is not accepted"),
        "key-cut": (pem(P256)[:80], "a key that was cut"),
        "key-empty": ("", "no key"),
        "key-with-nul": (pem(P256).replace("M", "\\u0000", 1), "a NUL in the key"),
        "key-certificate": (pem(P256).replace("PUBLIC KEY", "CERTIFICATE"), "a certificate in name"),
    }
    return {name: (entry(text).encode(), Case("KeyUnusable", why)) for name, (text, why) in texts.items()} | {
        "key-file-missing": (b'keys = ["gone.pub"]', Case("KeyUnusable", "a key that is not there")),
        "key-file-is-a-device": (b'keys = ["/dev/zero"]', Case("KeyUnusable", "a key without end")),
        "key-file-is-a-folder": (b'keys = ["."]', Case("KeyUnusable", "a folder for a key")),
        "key-file-with-nul": (b'keys = ["a\\u0000b"]', Case("KeyUnusable", "a NUL in a path")),
        "key-file-name-too-long": (
            b'keys = ["%b"]' % (b"x" * 300),
            Case("KeyUnusable", "a path of 300 bytes"),
        ),
        "threshold-over-the-publishers": (
            b"threshold = 2\n"
            + entry(pem(TRUSTED)).encode()
            + entry(pem(SECOND), 'roles = ["evaluator"]\n').encode(),
            Case("KeyUnusable", "an evaluator counted as a publisher"),
        ),
        "threshold-over-the-keys": (
            b"threshold = 2\n" + entry(pem(TRUSTED)).encode(),
            Case("KeyUnusable", "more signatures than there are keys"),
        ),
    }


def malformed_files() -> dict[str, tuple[bytes, Case]]:
    """Return name → (trust file, what it gets) for files of another form, or of two meanings."""
    good, name = entry(pem(TRUSTED)), 'name = "release"\n'
    texts: dict[str, tuple[str | bytes, str]] = {
        "key-twice": (good + good, "one key counted for two"),
        "key-twice-with-other-families": (
            good + entry(pem(TRUSTED), "families = []\n"),
            "which limit holds?",
        ),
        "name-twice": (entry(pem(TRUSTED), name) + entry(pem(SECOND), name), "one name for two keys"),
        "key-and-file": (entry(pem(TRUSTED), 'file = "x.pub"\n'), "two keys in an entry"),
        "key-neither": ("[[keys]]\n" + name, "an entry without a key"),
        "no-keys": ("keys = []\n", "nobody is trusted"),
        "unknown-field": (good + "family = ['flux']\n", "a limit that is misspelt must not be none"),
        "unknown-setting": ("treshold = 2\n" + good, "a threshold that is misspelt must not be one"),
        "threshold-zero": ("threshold = 0\n" + good, "no signature needed"),
        "threshold-negative": ("threshold = -1\n" + good, "fewer than no signatures needed"),
        "threshold-true": ("threshold = true\n" + good, "a truth for a number"),
        "threshold-float": ("threshold = 1.5\n" + good, "half a signature"),
        "threshold-a-date": ("threshold = 9999-12-31T23:59:59-23:59\n" + good, "a moment after the calendar"),
        "denied-short": ('denied = ["sha256:00"]\n' + good, "a denial that denies nothing"),
        "denied-newline": (f'denied = ["sha256:{"0" * 64}\\n"]\n' + good, "a denial that denies nothing"),
        "denied-upper-case": (f'denied = ["sha256:{"A" * 64}"]\n' + good, "a denial that denies nothing"),
        "minimum-of-no-name": (
            '[minimum-revision]\n"two words" = 2\n' + good,
            "a minimum that protects nothing",
        ),
        "minimum-zero": ("[minimum-revision]\nattacked = 0\n" + good, "a minimum below the first revision"),
        "family-of-no-name": (entry(pem(TRUSTED), 'families = ["a b"]\n'), "a family that no model has"),
        "role-unknown": (entry(pem(TRUSTED), 'roles = ["auditor"]\n'), "a role that nobody checks"),
        "role-none": (entry(pem(TRUSTED), "roles = []\n"), "a key for nothing"),
        "role-a-text": (entry(pem(TRUSTED), 'roles = "evaluator"\n'), "a text for a list"),
        "evaluation-by-nobody": (
            'require-evaluation = "psnr>=30"\n' + good,
            "a rule that no policy can meet",
        ),
        "evaluation-of-nothing": (
            'require-evaluation = ""\n' + entry(pem(TRUSTED), 'roles = ["publisher", "evaluator"]\n'),
            "a rule that requires nothing",
        ),
        "evaluation-upside-down": (
            'require-evaluation = "psnr<=30"\n' + entry(pem(TRUSTED), 'roles = ["publisher", "evaluator"]\n'),
            "a rule that refuses good policies",
        ),
        "evaluation-a-number": ("require-evaluation = 30\n" + good, "a bound of nothing"),
        "toml-setting-twice": ("threshold = 2\nthreshold = 1\n" + good, "two thresholds"),
        "toml-nul": (good + "# \0", "a NUL"),
        "toml-not-utf8": (good.encode() + b"# \xff", "another encoding"),
        "toml-byte-order-mark": ("\ufeff" + good, "a byte order mark"),
        "toml-brackets": (good + "x = " + "[" * 5000, "nesting that ends a recursive parser"),
        "toml-tables": (good + "x = " + "{a = " * 5000, "nesting that ends a recursive parser"),
        "toml-dotted-key": (good + ".".join("a" * 100_000) + " = 1", "a key that takes quadratic time"),
        "toml-header": (f"[{'.'.join('a' * 100_000)}]\n" + good, "a table that takes quadratic time"),
        "toml-string-without-end": (good + 'x = """' + '\\"""' * 20_000, "a string that never ends"),
        "toml-empty": ("", "nothing"),
        "toml-json": ('{"keys": ["release.pub"]}', "another language"),
        "toml-number-too-long": (f"threshold = {'9' * 5000}\n" + good, "more digits than Python reads"),
        "toml-over-a-mebibyte": (good + "#" * (1 << 20), "a file over the limit"),
    }
    return {
        name: (text if isinstance(text, bytes) else text.encode(), Case("TrustError", why))
        for name, (text, why) in texts.items()
    }
