"""Signing with a key that never leaves its token: SoftHSM, a PKCS #11 token in software."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from budc.schema.artifact import open_artifact, read
from budc.schema.keys import load_public
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

LIBRARY = next(
    (
        path
        for path in map(
            Path,
            (
                "/usr/lib/softhsm/libsofthsm2.so",
                "/usr/lib64/pkcs11/libsofthsm2.so",
                "/opt/homebrew/lib/softhsm/libsofthsm2.so",
            ),
        )
        if path.exists()
    ),
    None,
)
pytestmark = [
    pytest.mark.skipif(
        LIBRARY is None or not shutil.which("softhsm2-util"), reason="SoftHSM is not installed"
    ),
    pytest.mark.skipif(importlib.util.find_spec("pkcs11") is None, reason="python-pkcs11 is not installed"),
]

# A process of its own makes the key, as the library reads its configuration once.
MAKE = """
import os, sys
import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(os.environ["PYKCS11LIB"]).get_token(token_label="budc")
with token.open(rw=True, user_pin="1234") as session:
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    parameters.generate_keypair(store=True, label="release", id=b"\\x02")
from securesystemslib.signer import HSMSigner
uri, public = HSMSigner.import_(2, "budc", lambda _: "1234")
print(uri)
open(sys.argv[1], "w").write(public.keyval["public"])
"""
MakeDocument = Callable[..., PolicyDocument]


def test_a_token_signs_and_everybody_verifies(tmp_path: Path, make_document: MakeDocument) -> None:
    from budc.schema.artifact import seal

    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    environment = os.environ | {
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
        "PYKCS11LIB": str(LIBRARY),
        "BUDC_SECRET": "1234",
    }

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    label = ("--free", "--label", "budc", "--pin", "1234", "--so-pin", "5678")
    assert run("softhsm2-util", "--init-token", *label).returncode == 0
    token = run(sys.executable, "-c", MAKE, tmp_path / "token.pub")
    assert token.returncode == 0, token.stderr
    uri = token.stdout.strip()
    assert uri == "hsm:2?label=budc"

    path = tmp_path / "x.budc.json"
    path.write_bytes(seal(make_document(), None))
    budc = (sys.executable, "-c", "import sys; from budc.cli import main; sys.exit(main())")
    done = run(*budc, "sign", path, "--key", uri, "--public", tmp_path / "token.pub")
    assert done.returncode == 0, done.stderr
    artifact = open_artifact(path, Trust.from_pem(tmp_path / "token.pub"))
    assert artifact.verified_by == (load_public(tmp_path / "token.pub"),)

    path.write_bytes(seal(make_document(), None))
    environment["BUDC_SECRET"] = "9999"
    assert run(*budc, "sign", path, "--key", uri, "--public", tmp_path / "token.pub").returncode == 26
    assert not read(path).signed
