"""Public functions refuse an argument of another kind: a BudcError that names it, what it was, and what to pass."""

import re

import pytest

import budc
from budc.schema.errors import ArtifactError, BudcError, KeyUnusable, UsageError, WeightsMissing
from budc.schema.signers import generate_key
from budc.schema.trust import Trust

NOBODY = Trust(keys=())
WRONG_PATHS = [(None, "None"), (b"a.pub", "a bytes"), (["a.pub"], "a list"), ("", "''"), (3, "3")]


@pytest.fixture
def refused():
    """Call a function, which must refuse; check that the refusal names an argument and says what to pass."""

    def refused(call, message, remedy, kind=UsageError):
        with pytest.raises(BudcError) as caught:
            call()
        assert type(caught.value) is kind
        assert re.search(message, str(caught.value)), caught.value
        assert re.search(remedy, caught.value.remedy), caught.value.remedy

    return refused


@pytest.mark.parametrize(("value", "shown"), WRONG_PATHS)
def test_trust_is_made_of_paths(refused, value, shown):
    refused(lambda: budc.Trust.from_pem(value), f"paths: {shown} is no path", r'from_pem\("publisher.pub"\)')
    refused(lambda: budc.Trust.load(value), f"path: {shown} is no path", "trust file")


def test_trust_in_no_key_is_a_mistake(refused):
    refused(budc.Trust.from_pem, "paths: no key was given", "publisher.pub")


def test_keys_that_are_missing_or_folders(refused, tmp_path):
    refused(lambda: budc.Trust.from_pem(tmp_path / "none"), "cannot read .*none", ".", KeyUnusable)
    refused(lambda: budc.Trust.from_pem(tmp_path), "is not a regular file", ".", KeyUnusable)
    refused(lambda: budc.Trust.from_pem("a\0b"), "cannot contain NUL", "publisher.pub")


@pytest.mark.parametrize(("value", "shown"), [pair for pair in WRONG_PATHS if not isinstance(pair[0], bytes)])
def test_an_artifact_is_a_path_or_its_bytes(refused, value, shown):
    refused(
        lambda: budc.open_artifact(value, NOBODY),
        f"source: {shown} is no path",
        ".budc.json file, or its bytes",
    )


@pytest.mark.parametrize("trust", [None, "publisher.pub", b"key"])
def test_an_artifact_is_opened_by_trust(refused, trust):
    refused(lambda: budc.open_artifact("p.budc.json", trust), "trust: .* is no Trust", "Trust.from_pem")
    refused(lambda: budc.load_policy("model", trust=trust), "trust: .* is no Trust", "Trust.from_pem")


def test_artifacts_that_are_missing_or_folders(refused, tmp_path):
    refused(
        lambda: budc.open_artifact(tmp_path / "none", NOBODY), "cannot read .*none", "path", ArtifactError
    )
    refused(
        lambda: budc.open_artifact(tmp_path, NOBODY), "is not a regular file", "path of a file", ArtifactError
    )


@pytest.mark.parametrize(("value", "shown"), WRONG_PATHS)
def test_policies_are_attached_to_a_folder(refused, value, shown):
    refused(lambda: budc.load_policy(value, trust=NOBODY), f"model: {shown} is no path", "the model folder")


@pytest.mark.parametrize("nfe", ["10", 0, 2.5, True])
def test_a_number_of_evaluations_is_whole(refused, nfe, tmp_path):
    refused(lambda: budc.load_policy(tmp_path, nfe, trust=NOBODY), "nfe: .* is no whole number", "nfe=10")


@pytest.mark.parametrize(("value", "shown"), WRONG_PATHS)
def test_whoever_runs_a_policy_says_which_and_whom_to_trust(refused, value, shown):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    runs = (lambda artifact, **options: budc.apply(None, artifact, **options),
            lambda artifact, **options: budc.load_onnx(artifact, "folder", **options))  # fmt: skip
    for run in runs:
        if value is not None:
            message = f"trust: {shown} is no path"
            refused(lambda run=run: run("p.budc.json", trust=value), message, "pass a Trust, or the path")
        # Several policies for one model are a list.
        if not isinstance(value, bytes | list):
            refused(lambda run=run: run(value), f"artifact: {shown} is no path", "open_artifact returned")


@pytest.mark.parametrize(("value", "shown"), WRONG_PATHS)
def test_a_pipeline_is_loaded_by_name_from_a_folder(refused, value, shown):
    pytest.importorskip("torch")
    if not isinstance(value, str):
        refused(lambda: budc.load_pipeline(value), f"model: {shown} is no ModelProfile", "budc models")
    if value is not None:
        refused(
            lambda: budc.load_pipeline("wan2.1", weights=value),
            f"weights: {shown} is no path",
            "model folder",
        )


def test_a_pipeline_of_an_unknown_device_dtype_or_folder(refused, tmp_path):
    pytest.importorskip("torch")
    refused(lambda: budc.load_pipeline("wan2.1-nano", device="gpu"), "device: 'gpu' is no device", "cpu")
    refused(lambda: budc.load_pipeline("wan2.1-nano", device=object()), "device: an object", "cpu")
    refused(lambda: budc.load_pipeline("wan2.1-nano", dtype=5), "dtype: 5", "float32")
    refused(lambda: budc.load_pipeline("wan2.1", weights=tmp_path / "none"), "none", ".", WeightsMissing)


def test_paths_of_either_kind_are_taken(tmp_path):
    key = tmp_path / "publisher.pub"
    key.write_bytes(generate_key().public)
    assert budc.Trust.from_pem(key).keys == budc.Trust.from_pem(str(key)).keys
