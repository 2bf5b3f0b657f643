"""`budc export onnx` and `budc bind`, on an untrained model and its export."""

import json
import shutil

import msgspec
import pytest
from format_additions import ADDED
from tiny_folders import EXPORT_SHAPE

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

import numpy as np  # noqa: E402

from budc.cli.generation import binding  # noqa: E402
from budc.compiler.bind import rebound  # noqa: E402
from budc.compiler.evaluation.parity import Parity, check_parity  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.models.binding import model_binding  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.runtimes.admission.additions import BIND, RUNS  # noqa: E402
from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.runtimes.exported.manifest import MANIFEST, decode_manifest, encode_manifest  # noqa: E402
from budc.schema.artifact import open_artifact, read, seal  # noqa: E402
from budc.schema.digest_cache import DigestCache  # noqa: E402
from budc.schema.errors import ParityMismatch, UnsupportedModel, UnsupportedVersion, WeightsMissing  # noqa: E402
from budc.schema.hashing import sha256_file  # noqa: E402
from budc.schema.signers import generate_key  # noqa: E402

PROFILE = load_profile("wan2.1-nano")
STEPS, NFE = 4, 2


@pytest.fixture(scope="module")
def document(make_document, weights):
    """A policy for the untrained model, at the shape of the export."""
    model = load_model(PROFILE, weights, torch.device("cpu"))
    binding = model_binding(PROFILE, weights)
    return make_document(
        steps=STEPS, nfe=NFE, model=binding, sampler=model.sampler(STEPS), shape=EXPORT_SHAPE
    )


@pytest.mark.parametrize("name", [name for name, (_, added) in ADDED.items() if not set(added) <= RUNS[BIND]])
def test_a_policy_that_no_export_can_run_is_not_bound(document, tmp_path, monkeypatch, name):
    change, added = ADDED[name]
    artifact = read(seal(change(document), None))
    monkeypatch.setattr(binding, "find_original", lambda *_: tmp_path)
    request = binding.BindRequest(
        artifact, tmp_path, load_profile("wan2.1-nano"), None, 1, None, DigestCache.of_user()
    )
    missing = next(item for item in added if item not in RUNS[BIND]).replace(".", r"\.")
    with pytest.raises((UnsupportedVersion, UnsupportedModel), match=missing):
        binding.bind_export(request)


@pytest.fixture
def key(tmp_path, key_pair):
    path = tmp_path / "release.key"
    path.write_bytes(key_pair.private)
    return path


@pytest.fixture
def policy(tmp_path, document, signer):
    path = tmp_path / "policy.budc.json"
    path.write_bytes(seal(document, signer))
    return path


@pytest.fixture
def bind(budc, policy, key, weights, exported):
    """Call `budc bind` with what it needs; keywords replace that."""

    def call(*flags, variant=exported, key=key, policy=policy):
        base = ("bind", policy, "--variant", variant, "--key", key, "--weights", weights, "--samples", 1)
        return budc(*base, *flags)

    return call


# bind ----------------------------------------------------------------------------------------------------


def stages(outcome):
    """The stages and passes that began, in their order."""
    events = map(json.loads, outcome.err.splitlines())
    return [event["stage"] for event in events if event["event"] in ("stage", "pass")]


def test_an_export_shows_its_stages(budc, tmp_path, monkeypatch):
    def gone(*_):
        raise WeightsMissing("vae: gone")

    monkeypatch.setattr("budc.compiler.export.onnx._write", gone)
    outcome = budc(
        "export", "onnx", "--model", "wan2.1-nano", "--out", tmp_path / "out", "--progress", "json"
    )
    *events, _error, _remedy = outcome.err.splitlines()
    assert outcome.code == WeightsMissing.exit_code
    assert [json.loads(event).get("stage") for event in events] == ["import", "load", "export"]


def test_binding_lists_the_export_and_signs_again(bind, policy, exported, trust, document):
    outcome = bind("--json", "--progress", "json")
    assert outcome.code == 0, outcome.err
    assert stages(outcome) == ["hash", "import", "verify", "load", "encode", "parity"]
    path = policy.with_name("policy.onnx-float32.budc.json")
    bound = open_artifact(path, trust)
    variant, _ = describe_export(exported)
    assert bound.document.model.variants == [*document.model.variants, variant]
    assert bound.document.derived_from == read(policy).policy_id
    assert bound.document.revision == document.revision + 1
    assert "float32" in next(iter(bound.document.annotations))
    for field in ("name", "policy", "quality", "sampler", "shape", "budget", "search"):
        assert getattr(bound.document, field) == getattr(document, field)
    record = outcome.record
    assert record["policyId"] == bound.policy_id
    assert record["path"] == str(path)
    assert 0 < record["parity"]["latents"] < 1e-4
    assert 0 < record["parity"]["frames"] < 1e-3


def test_both_forms_are_compared_without_tf32(bind, monkeypatch):
    seen, run = [], PipelineRollout.run

    def watched(*arguments):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return run(*arguments)

    monkeypatch.setattr(PipelineRollout, "run", watched)
    before = torch.backends.cudnn.conv.fp32_precision
    assert bind().code == 0
    assert before == torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert seen == ["none"]


def test_the_bound_policy_still_holds_for_the_original(bind, budc, public, policy, weights, exported):
    assert bind().code == 0
    bound = policy.with_name("policy.onnx-float32.budc.json")
    for folder, variant in ((weights, "original"), (exported, "onnx-float32")):
        outcome = budc("verify", bound, "--trust", public, "--weights", folder)
        assert outcome.code == 0, outcome.err
        assert f"variant {variant}" in outcome.out


def test_binding_again_replaces_the_variant(bind, policy, trust, tmp_path):
    first, second = tmp_path / "first.budc.json", tmp_path / "second.budc.json"
    assert bind("--out", first).code == 0
    assert bind("--out", second, "--revision", 7, policy=first).code == 0
    document = open_artifact(second, trust).document
    assert [variant.name for variant in document.model.variants] == ["original", "onnx-float32"]
    assert (document.revision, document.derived_from) == (7, read(first).policy_id)


def test_a_revision_that_is_not_newer_is_refused(bind):
    outcome = bind("--revision", 1)
    assert outcome.code == 2
    assert "--revision 2" in outcome.err


def test_a_policy_of_a_stranger_is_not_signed(bind, tmp_path, public):
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(generate_key().private)
    assert bind(key=stranger).code == 23
    assert bind("--trust", public, key=stranger).code == 0


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("", 31),  # believed, and only then is the export looked for
        ('families = ["wan"]', 31),
        ('families = ["flux"]', 23),
        ('[minimum-revision]\n"wan-nano-nfe3" = 2', 27),
        ("threshold = 2", 23),
    ],
)
def test_the_trust_files_limits_hold_for_the_signing_key(
    budc, sealed, key, public, configuration, tmp_path, limits, code
):
    second = tmp_path / "second.pub"
    second.write_bytes(generate_key().public)
    configuration.mkdir(parents=True)
    threshold, limits = (limits, "") if limits.startswith("threshold") else ("", limits)
    (configuration / "trust.toml").write_text(
        f'{threshold}\n[[keys]]\nfile = "{second}"\n[[keys]]\nfile = "{public}"\n{limits}\n'
    )
    outcome = budc("bind", sealed(), "--variant", tmp_path / "none", "--key", key)
    assert outcome.code == code, outcome.err


def test_an_unsigned_policy_is_bound_only_if_asked(bind, policy, document, trust):
    policy.write_bytes(seal(document, None))
    assert bind().code == 21
    assert bind("--allow-unsigned").code == 0
    assert open_artifact(policy.with_name("policy.onnx-float32.budc.json"), trust).verified_by


def test_another_original_is_refused(bind, weights, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    config = other / "transformer/config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-05"))
    assert bind("--weights", other).code == 32


def changed(exported, folder, change):
    """A copy of an export in which a file was changed, and listed again."""
    shutil.copytree(exported, folder)
    change(folder)
    manifest = decode_manifest((folder / MANIFEST).read_bytes())
    files = {name: sha256_file(folder / name) for name in manifest.files}
    (folder / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))
    return folder


@pytest.mark.parametrize(
    "name", ["transformer/weights", "text_encoder/model", "vae_decoder/model"], ids=lambda name: name[:4]
)
def test_an_export_that_computes_something_else_is_refused(bind, exported, tmp_path, policy, name):
    def spoil(folder):
        for graph in (folder / name).parent.glob("*.onnx"):
            model = onnx.load(graph, load_external_data=False)
            with (folder / f"{name}.onnx.data").open("r+b") as weights:
                for tensor in model.graph.initializer:
                    entries = {entry.key: entry.value for entry in tensor.external_data}
                    if tensor.data_type == onnx.TensorProto.FLOAT and entries:
                        offset, length = int(entries["offset"]), int(entries["length"])
                        weights.seek(offset)
                        values = np.frombuffer(weights.read(length), np.float32) * np.float32(1.1)
                        weights.seek(offset)
                        weights.write(values.tobytes())

    outcome = bind(variant=changed(exported, tmp_path / "spoiled", spoil))
    assert outcome.code == 35, outcome.err
    assert "differ by" in outcome.err
    assert not policy.with_name("policy.onnx-float32.budc.json").exists()


def test_an_export_that_fails_when_it_is_run_is_refused(bind, exported, tmp_path):
    def spoil(folder):
        path = folder / "vae_decoder/model.onnx.data"
        # The graph's indices are among what becomes nonsense.
        np.full(path.stat().st_size // 4, -1e30, np.float32).tofile(path)

    outcome = bind(variant=changed(exported, tmp_path / "spoiled", spoil))
    assert outcome.code == 35, outcome.err
    assert "fails when it is run" in outcome.err


def test_an_export_that_is_not_safe_to_open_is_refused(bind, exported, tmp_path):
    def cut(folder):
        path = folder / "transformer/weights.onnx.data"
        path.write_bytes(path.read_bytes()[:-4])

    outcome = bind(variant=changed(exported, tmp_path / "cut", cut))
    assert outcome.code == 33
    assert "transformer/weights.onnx.data" in outcome.err


def test_a_folder_that_is_no_export_is_refused(bind, weights):
    outcome = bind(variant=weights)
    assert outcome.code == 31
    assert MANIFEST in outcome.err


def test_an_export_of_another_shape_is_refused(bind, exported, tmp_path, document, policy, signer):
    smaller = msgspec.structs.replace(document.shape, height=32)
    policy.write_bytes(seal(msgspec.structs.replace(document, shape=smaller), signer))
    outcome = bind()
    assert outcome.code == 41
    assert "height" in outcome.err


@pytest.mark.parametrize(
    ("parity", "dtype", "passes"),
    [
        (Parity((9e-5, 1e-6), (9e-4, 0.0)), "float32", True),
        (Parity((2e-4, 1e-6, 1e-6), (0.0,) * 3), "float32", False),
        (Parity((0.0,) * 3, (0.0, 2e-3, 0.0)), "float32", False),
        (Parity((1e-2, 9e-1, 1e-3), (9e-4,) * 3), "float16", True),
        (Parity((3e-2, 9e-1, 1e-3), (9e-4,) * 3), "float16", False),
        (Parity((1e-3, 3e-2), (0.0,) * 2), "float16", False),
        (Parity((0.0,) * 3, (0.0, 2e-3, 0.0)), "float16", False),
        (Parity((float("inf"),), (0.0,)), "float16", False),
        (Parity((0.0,), (float("inf"),)), "float32", False),
    ],
)
def test_tolerances(parity, dtype, passes):
    if passes:
        check_parity(parity, dtype)
    else:
        with pytest.raises(ParityMismatch, match=dtype):
            check_parity(parity, dtype)


def test_what_was_noted_before_is_kept(document, signer, exported):
    noted = msgspec.structs.replace(document, annotations={"licence": "x"})
    variant, _ = describe_export(exported)
    after = rebound(read(seal(noted, signer)), variant, Parity((1e-6,), (1e-5,)))
    assert after.annotations["licence"] == "x"
    assert len(after.annotations) == 2


# export --------------------------------------------------------------------------------------------------


def test_export_refuses_what_exists_before_it_loads(budc, tmp_path, weights):
    (tmp_path / "out").mkdir()
    outcome = budc(
        "export", "onnx", "--model", "wan2.1-nano", "--weights", weights, "--out", tmp_path / "out"
    )
    assert outcome.code == 61
    assert "exists" in outcome.err


@pytest.mark.parametrize("flags", [("--dtype", "int4"), ("--model", "wan9")])
def test_export_refuses_names_that_it_does_not_know(budc, tmp_path, flags):
    outcome = budc("export", "onnx", "--model", "wan2.1-nano", "--out", tmp_path / "out", *flags)
    assert outcome.code == 2


def test_export_without_the_packages_says_which_extra(budc, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find(name, *rest)
    )
    outcome = budc("export", "onnx", "--model", "wan2.1-nano", "--out", tmp_path / "out")
    assert outcome.code == 60
    assert "budc[export]" in outcome.err
