"""`budc report`: what it refuses, and what the page says of trust."""

import msgspec
import pytest

from budc.schema.artifact import seal

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


@pytest.fixture
def report(budc, tmp_path):
    """Call `budc report`; return what it printed, and the page."""
    out = tmp_path / "report.html"

    def call(*arguments):
        out.unlink(missing_ok=True)
        outcome = budc("report", *arguments, "--out", out)
        assert out.exists() == (outcome.code == 0)
        return outcome, out.read_text(encoding="utf-8") if out.exists() else ""

    return call


def test_what_is_trusted_is_named(report, sealed, public, configuration, budc):
    path = sealed()
    outcome, page = report(path, "--trust", public)
    assert outcome.code == 0
    assert "verified: signed by sha256:" in page
    assert "ot verified" not in page
    assert budc("trust", "add", public, "--name", "lab").code == 0
    assert "verified: signed by lab, sha256:" in report(path)[1]


def test_what_is_not_verified_is_said_or_refused(report, sealed, public):
    outcome, page = report(sealed())
    assert outcome.code == 0
    assert "not verified: " in page
    unsigned = sealed(signed=False)
    assert "UNSIGNED: nobody vouches for this file" in report(unsigned)[1]
    outcome, _ = report(unsigned, "--trust", public)
    assert outcome.code == 21


def test_bad_input_is_refused(report, sealed, tmp_path, budc):
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for path, code, message in (
        (tmp_path / "notes.json", 12, "bundle"),
        (tmp_path / "empty", 10, "there is no policy in"),
        (tmp_path / "none.budc.json", 10, "cannot read"),
    ):
        outcome, _ = report(path)
        assert outcome.code // 10 == code // 10, outcome.err
        assert message in outcome.err
    outcome = budc("report", sealed(), "--out", tmp_path / "no" / "page.html")
    assert outcome.code == 61
    outcome, _ = report(sealed(), "--evaluation", tmp_path / "notes.json")
    assert outcome.code // 10 == 1
    assert "bundle" in outcome.err


def test_an_evaluation_of_another_policy_is_refused(report, sealed, tmp_path, make_document, make_evaluation):
    path = tmp_path / "other.evaluation.json"
    path.write_bytes(msgspec.json.encode(make_evaluation(make_document(name="another"))))
    policy = sealed()
    outcome, _ = report(policy, "--evaluation", path)
    assert outcome.code == 2
    assert "is an evaluation of another (sha256:" in outcome.err
    # One that merely lies in the folder is passed over.
    outcome, page = report(tmp_path)
    assert outcome.code == 0
    assert "has no values of single prompts" in page


def test_policies_of_two_models_have_charts_of_their_own(report, make_document, tmp_path):
    document = make_document()
    (denoiser,) = document.model.denoisers
    other = msgspec.structs.replace(denoiser, tensor_root=f"sha256:{'9' * 64}")
    model = msgspec.structs.replace(document.model, denoisers=[other])
    for name, changed in (("one", document.model), ("two", model)):
        fields = msgspec.structs.replace(document, name=name, model=changed)
        (tmp_path / f"{name}.budc.json").write_bytes(seal(fields, None))
    outcome, page = report(tmp_path)
    assert outcome.code == 0
    assert page.count('id="compared-1-latent-mse-evaluations"') == 1
    assert page.count('id="compared-2-latent-mse-evaluations"') == 1


def test_an_error_names_its_file(report, sealed, tmp_path):
    sealed()
    (tmp_path / "broken.budc.json").write_text("{}")
    outcome, _ = report(tmp_path)
    assert f"{tmp_path / 'broken.budc.json'}: " in outcome.err
    (tmp_path / "broken.budc.json").rename(tmp_path / "broken.evaluation.json")
    outcome, _ = report(tmp_path)
    assert f"{tmp_path / 'broken.evaluation.json'}: " in outcome.err


def test_a_compile_refuses_a_page_that_it_cannot_write(budc, tmp_path):
    flags = ["compile", "--model", "wan2.1-nano", "--budget", "4", "--out", tmp_path / "a.budc.json"]
    outcome = budc(*flags, "--report", tmp_path / "no" / "a.html")
    assert outcome.code == 61
    assert outcome.err.startswith("error: --report: cannot write in")
    assert list(tmp_path.iterdir()) == []


def test_a_compile_refuses_a_page_beside_a_trust_file_that_is_missing(budc, tmp_path, monkeypatch):
    """The page would say whom the user trusts: known before the search, not after it."""
    monkeypatch.setenv("BUDC_TRUST", str(tmp_path / "none.toml"))
    flags = ["compile", "--model", "wan2.1-nano", "--budget", "4", "--out", tmp_path / "a.budc.json"]
    outcome = budc(*flags, "--report", tmp_path / "a.html")
    assert outcome.code == 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_compile_writes_it_too(budc, compiled, shrunken, monkeypatch, tmp_path):
    shrunken(monkeypatch)
    flags = ["compile", "--model", "wan2.1-nano", "--budget", "6", "--steps", "6", "--search", "uniform"]
    flags += ["--weights", compiled.weights, "--calibration", compiled.prompts, "--no-frames"]
    flags += ["--out", tmp_path / "a.budc.json"]
    outcome = budc(*flags, "--report", tmp_path / "a.html", "--json")
    assert outcome.record["name"] == "wan2.1-nano-nfe6"
    assert f"wrote {tmp_path / 'a.html'}: 1 policy" in outcome.err
    assert "every step is computed" in (tmp_path / "a.html").read_text(encoding="utf-8")
