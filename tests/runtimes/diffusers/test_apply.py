"""apply: who vouches for an artifact, and which pipeline it is for."""

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")

from budc.runtimes.admission.settings import UncalibratedWarning
from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.diffusers.apply import applied, apply
from budc.schema.artifact import open_artifact, read, seal
from budc.schema.digests import file_digests
from budc.schema.errors import (
    CalibrationMismatch,
    Expired,
    TrustError,
    Unsigned,
    UntrustedKey,
)
from budc.schema.files import write_atomic
from budc.schema.installation import install
from budc.schema.policy import PolicyDocument
from budc.schema.signers import generate_key, load_signer
from budc.schema.trust import Trust

CompiledFor = Callable[..., PolicyDocument]


class Published:
    """A model folder with a signed and an unsigned artifact beside it, and whom to trust."""

    def __init__(self, pipe: Any, document_for: CompiledFor, folder: Path) -> None:
        pipe.transformer.save_pretrained(folder / "transformer")
        names = ["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"]
        self.document = document_for(pipe, files=file_digests(folder, names))
        self.folder, self.signed, self.unsigned = folder, folder / "s.budc.json", folder / "u.budc.json"
        self.trust = self.key("release", folder)
        self.stranger = self.key("stranger", folder)
        write_atomic(self.signed, seal(self.document, load_signer(str(folder / "release.key"))))
        write_atomic(self.unsigned, seal(self.document, None))

    def key(self, name: str, folder: Path) -> Trust:
        pair = generate_key()
        write_atomic(folder / f"{name}.key", pair.private, mode=0o600)
        write_atomic(folder / f"{name}.pub", pair.public)
        return Trust.from_pem(folder / f"{name}.pub")


@pytest.fixture
def published(wan: Any, compiled_for: CompiledFor, tmp_path: Path) -> Published:
    return Published(wan, compiled_for, tmp_path)


def test_a_signed_file_runs(wan: Any, published: Published, run: Any) -> None:
    full = run(wan)
    with applied(
        wan, published.signed, trust=published.trust, weights_dir=published.folder
    ) as applied_policy:
        assert applied_policy.document == open_artifact(published.signed, published.trust).document
        assert (run(wan) - full).abs().max() > 0
        assert applied_policy.uncalibrated == ()


def test_what_apply_returns_says_what_it_is(wan: Any, published: Published, run: Any) -> None:
    key = published.folder / "release.pub"
    with applied(wan, published.signed, trust=key, weights_dir=published.folder) as applied_policy:
        said = "<AppliedPolicy tiny on WanPipeline: 3 of 6 steps computed, signed by release.pub>"
        assert repr(applied_policy) == said
    assert repr(applied_policy) == "<AppliedPolicy tiny on WanPipeline: removed>"
    applied_policy = quietly(wan, published.document, allow_uncalibrated=True)
    with pytest.warns(UncalibratedWarning):
        run(wan, guidance_scale=3.0)
    assert repr(applied_policy) == (
        "<AppliedPolicy tiny on WanPipeline: 3 of 6 steps computed, unsigned, "
        "uncalibrated (guidance: the policy was calibrated for 5.0, this run has 3.0)>"
    )


def test_an_opened_artifact_runs(wan: Any, published: Published) -> None:
    artifact = open_artifact(published.signed, published.trust)
    apply(wan, artifact).remove()
    apply(wan, artifact, trust=published.trust).remove()
    with pytest.raises(UntrustedKey):
        apply(wan, artifact, trust=published.stranger)


def test_a_public_key_file_is_trust_enough(wan: Any, published: Published) -> None:
    apply(
        wan, published.signed, trust=published.folder / "release.pub", weights_dir=published.folder
    ).remove()
    with pytest.raises(UntrustedKey):
        apply(wan, published.signed, trust=published.folder / "stranger.pub")


def test_an_artifact_that_was_only_read_is_not_believed(wan: Any, published: Published) -> None:
    artifact = read(published.signed)
    for options in ({}, {"trust": published.stranger}, {"allow_unsigned": True}):
        with pytest.raises(TrustError):
            apply(wan, artifact, **options)  # type: ignore[arg-type]
    apply(wan, artifact, trust=published.trust).remove()
    forged = dataclasses.replace(artifact, payload=artifact.payload + b" ")
    with pytest.raises(TrustError):
        apply(wan, forged, trust=published.trust)


def test_unsigned_runs_only_when_allowed_and_says_so(wan: Any, published: Published) -> None:
    for source in (published.unsigned, str(published.unsigned), read(published.unsigned), published.document):
        with pytest.raises(Unsigned):
            apply(wan, source, trust=published.trust)
        with pytest.warns(UnsignedWarning, match="tiny is not signed"):
            apply(wan, source, allow_unsigned=True).remove()


def test_what_has_expired_is_refused_on_every_path(wan: Any, published: Published) -> None:
    dates = {"issued_at": "2019-01-01T00:00:00Z", "not_after": "2020-01-01T00:00:00Z"}
    expired = msgspec.structs.replace(published.document, **dates)
    unsigned = published.folder / "expired.budc.json"
    write_atomic(unsigned, seal(expired, None))
    for source in (expired, read(unsigned), unsigned):
        with pytest.raises(Expired):
            apply(wan, source, allow_unsigned=True, weights_dir=published.folder)


def test_a_stranger_is_refused_even_if_unsigned_is_allowed(wan: Any, published: Published) -> None:
    with pytest.raises(UntrustedKey):
        apply(wan, published.signed, trust=published.stranger, allow_unsigned=True)


def change(document: PolicyDocument, **fields: Any) -> PolicyDocument:
    return msgspec.structs.replace(document, model=msgspec.structs.replace(document.model, **fields))


def quietly(pipe: Any, document: PolicyDocument, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return apply(pipe, document, allow_unsigned=True, **options)


def test_another_pipeline_class(wan: Any, published: Published) -> None:
    document = change(published.document, pipeline_class="WanVACEPipeline")
    with pytest.raises(
        CalibrationMismatch, match=r"pipeline: .* for WanVACEPipeline, this run has WanPipeline"
    ):
        quietly(wan, document)
    applied_policy = quietly(wan, document, allow_uncalibrated=True)
    assert len(applied_policy.uncalibrated) == 1


def test_a_subclass_of_the_pipeline_will_do(wan: Any, published: Published) -> None:
    wan.__class__ = type("HousePipeline", (type(wan),), {})
    assert not quietly(wan, published.document).uncalibrated


def test_a_refused_apply_leaves_the_pipeline_alone(wan: Any, published: Published) -> None:
    before = [dict(vars(wan)), dict(vars(wan.scheduler)), dict(vars(wan.transformer))]
    wan.transformer.proj_out.bias.data.zero_()
    with pytest.raises(Exception, match="tensor root"):
        quietly(wan, published.document)
    assert [dict(vars(wan)), dict(vars(wan.scheduler)), dict(vars(wan.transformer))] == before


def test_the_package_itself_imports_no_framework() -> None:
    code = "import sys, budc, budc.runtimes; print({'torch', 'diffusers', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_missing_framework_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from budc.schema.errors import MissingExtra\n"
        "try:\n    import budc.runtimes.diffusers.apply\n"
        "except MissingExtra as error:\n    print(error, '|', error.remedy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "budc[torch]" in done.stdout.split("|")[0]
    assert done.stdout.strip().endswith(install("torch"))
