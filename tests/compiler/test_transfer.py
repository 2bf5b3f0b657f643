"""Transfer: rebound to the target, fitted there, measured there; refused where it cannot be carried over."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from format_additions import ADDED, with_negative
from lora import write_lora
from tiny_profiles import small_profiles, tiny_flux

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from msgspec.structs import replace  # noqa: E402

from budc.compiler import transfer_request as module  # noqa: E402
from budc.compiler.compatibility import check_family  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.transfer import transfer  # noqa: E402
from budc.compiler.transfer_request import TransferRequest  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.runtimes.admission.additions import RUNS, TRANSFER  # noqa: E402
from budc.schema.artifact import Artifact, read, seal  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    CalibrationMismatch,
    OutputError,
    UnsupportedModel,
    UnsupportedVersion,
    UsageError,
)
from budc.schema.signers import generate_key  # noqa: E402


@pytest.fixture(scope="module")
def compiled(flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A uniform policy for the tiny FLUX, made once for the same profile."""
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as monkeypatch:
        profile = tiny_flux(small_profiles(monkeypatch, folder / "profiles"))
        request = CompileRequest(
            model=profile, budget="3", weights=flux_folder, search="uniform", out=folder / "source.budc.json"
        )
        return compile_artifacts(request.resolve())[0]


@pytest.fixture
def source(flux_profile: str, compiled: Artifact) -> Artifact:
    """That policy, its profile among the shipped ones."""
    return compiled


@pytest.fixture(scope="session")
def sibling(flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pipeline with a larger transformer."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    pipe = FluxPipeline.from_pretrained(flux_folder)
    torch.manual_seed(7)
    config = dict(pipe.transformer.config) | {"num_layers": 2, "num_attention_heads": 3}
    pipe.transformer = FluxTransformer2DModel.from_config(config)
    folder = tmp_path_factory.mktemp("models") / "flux-sibling"
    pipe.save_pretrained(folder)
    return folder


def moved(source: Artifact, folder: Path, out: Path, **options: Any) -> Artifact:
    request = TransferRequest(source=source, to="flux-tiny", weights=folder, out=out, **options)
    return transfer(request.resolve())


def test_masks_stay_and_coefficients_are_fitted_on_the_target(
    source: Artifact, sibling: Path, tmp_path: Path
) -> None:
    before, after = source.document, moved(source, sibling, tmp_path / "moved.budc.json").document
    assert after.derived_from == source.policy_id
    assert [b.mask for b in after.policy.branches] == [b.mask for b in before.policy.branches]
    assert after.policy.payload == before.policy.payload
    assert after.policy != before.policy
    assert after.model.denoisers[0].tensor_root != before.model.denoisers[0].tensor_root
    assert after.sampler == before.sampler
    chosen = after.search.settings["choice1"]
    assert chosen == "fitted coefficients, which lose less on 4 prompts than its own"
    # One full run of the four calibration prompts, and a rollout with fitted coefficients and with its own.
    assert after.search.forwards == 4 * (6 + 2 * 3)
    names = [baseline.name for baseline in after.quality.baselines]
    assert names == ["frozen", "uniform", "fewer-steps", "full"]
    frozen, uniform = after.quality.baselines[:2]
    # The source was the uniform mask with plain reuse, so as it came it is just that.
    assert frozen.metrics == uniform.metrics
    assert after.quality.metrics[0].geometric_mean < frozen.metrics[0].geometric_mean


@pytest.mark.parametrize(
    "name", [name for name, (_, added) in ADDED.items() if not set(added) <= RUNS[TRANSFER]]
)
def test_what_the_target_would_not_have_is_refused(make_document: Any, name: str) -> None:
    change, added = ADDED[name]
    source = read(seal(change(make_document()), None))
    with pytest.raises((UnsupportedVersion, UnsupportedModel), match=added[0].replace(".", r"\.")):
        TransferRequest(source=source, to="flux-nano").resolve()


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "blurred"), ("dark", "dark"), ("", "")], ids=["kept", "replaced", "empty"]
)
def test_the_negative_prompt_is_the_policy_s_unless_another_is_given(
    make_document: Any, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.setattr(module, "check_family", lambda *_: None)
    monkeypatch.setattr(module, "check_sampling", lambda *_: None)
    source = read(seal(with_negative(make_document(), "blurred"), None))
    plan = TransferRequest(source=source, to="wan2.1-mini", negative=given).resolve()
    assert plan.target.bound(source.document.sampler).negative_prompt.text == expected
    assert {sample.negative for sample in plan.target.samples.calibration} == {expected}


def test_the_target_has_adapters_of_its_own_or_none(
    source: Artifact, flux_profile: str, flux_folder: Path, tmp_path: Path
) -> None:
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(flux_folder)
    style = write_lora(tmp_path / "style.safetensors", pipe.transformer)
    moved_to = moved(source, flux_folder, tmp_path / "moved.budc.json", frozen=True, lora=(f"{style}:0.5",))
    (adapter,) = moved_to.document.model.adapters.scaled
    assert (adapter.name, adapter.scale) == ("style", 0.5)
    assert adapter.loaded is not None
    assert moved_to.document.quality.metrics != source.document.quality.metrics
    # What is said of a policy that no export can run: fuse, save, transfer.
    pipe.load_lora_weights(str(tmp_path), weight_name=style.name, adapter_name="a")
    pipe.fuse_lora(lora_scale=0.5)
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "fused")
    fused = moved(moved_to, tmp_path / "fused", tmp_path / "fused.budc.json", frozen=True).document
    assert fused.model.adapters.rule == "none"
    assert fused.quality.metrics[0].mean == pytest.approx(moved_to.document.quality.metrics[0].mean, rel=1e-3)


def test_frozen_is_the_same_policy_on_other_weights(source: Artifact, sibling: Path, tmp_path: Path) -> None:
    document = moved(source, sibling, tmp_path / "moved.budc.json", frozen=True).document
    assert document.policy == source.document.policy
    assert document.search.forwards == document.search.candidates == 0
    assert "frozen" not in [baseline.name for baseline in document.quality.baselines]
    assert document.quality.metrics != source.document.quality.metrics


def test_masks_near_the_policy_s_own_are_tried_where_asked_for(
    source: Artifact, sibling: Path, tmp_path: Path
) -> None:
    plain = moved(source, sibling, tmp_path / "plain.budc.json").document
    document = moved(source, sibling, tmp_path / "near.budc.json", nearby=True).document
    assert document.search.settings["nearby"] is True
    # Every payload with the policy's mask, and up to eight masks more; of 6 steps there are ten.
    assert document.search.candidates == 1 + 9
    assert plain.search.forwards < document.search.forwards
    assert document.policy.branches[0].mask.count(True) == 3
    assert document.derived_from == source.policy_id


def test_name_revision_key_and_prompts_are_the_user_s(
    source: Artifact, sibling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red box\na blue ring\n")
    monkeypatch.setenv("RELEASE_KEY", generate_key().private.decode())
    request = TransferRequest(
        source=source,
        to="flux-tiny",
        weights=sibling,
        frozen=True,
        name="mine",
        revision=7,
        key="env:RELEASE_KEY",
        calibration=tmp_path / "prompts.txt",
        rehash=True,
    )
    artifact = transfer(request.resolve())
    assert artifact.path == Path("mine.budc.json")
    assert artifact.signed
    assert (artifact.document.name, artifact.document.revision) == ("mine", 7)
    assert artifact.document.quality.calibration.size == 2


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"to": "flux-tinny"}, UsageError, "no profile named"),
        ({"name": "two words"}, UsageError, "--name"),
        ({"revision": 0}, UsageError, "--revision: is 0"),
        ({"out": Path("nowhere/x.budc.json")}, OutputError, "--out"),
        ({"calibration": Path("nowhere.txt")}, UsageError, "cannot read prompts"),
    ],
    ids=str,
)
def test_bad_input_is_refused_when_the_request_is_resolved(
    source: Artifact, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TransferRequest(
            **{"source": source, "to": "flux-tiny", "weights": Path("nowhere")} | fields
        ).resolve()


def test_nearby_with_frozen_is_refused(source: Artifact, sibling: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--nearby fits coefficients, --frozen keeps them"):
        moved(source, sibling, tmp_path / "moved.budc.json", nearby=True, frozen=True)
    assert not (tmp_path / "moved.budc.json").exists()


def test_nearby_needs_one_mask(source: Artifact, sibling: Path, tmp_path: Path) -> None:
    (entry,) = source.document.policy.branches
    other = replace(entry, names=["uncond"], mask=[True, True, True, False, False, False])
    policy = replace(source.document.policy, branches=[entry, other])
    separate = dataclasses.replace(source, document=replace(source.document, policy=policy))
    with pytest.raises(UsageError, match="--nearby: the policy's guidance branches have masks of their own"):
        moved(separate, sibling, tmp_path / "moved.budc.json", nearby=True)


def test_a_native_search_stands_beside(source: Artifact, sibling: Path, tmp_path: Path) -> None:
    document = moved(source, sibling, tmp_path / "moved.budc.json", native=True).document
    assert [b.name for b in document.quality.baselines] == [
        "frozen",
        "native",
        "uniform",
        "fewer-steps",
        "full",
    ]
    assert all(b.nfe == 3 for b in document.quality.baselines[:2])


def test_the_result_runs_on_the_target_and_not_on_the_source(
    source: Artifact, sibling: Path, flux_folder: Path, tmp_path: Path
) -> None:
    from diffusers import FluxPipeline

    import budc
    from budc.schema.errors import WeightsMismatch

    artifact = moved(source, sibling, tmp_path / "moved.budc.json")
    with pytest.warns(UserWarning, match="not signed"):
        budc.apply(FluxPipeline.from_pretrained(sibling), artifact, allow_unsigned=True).remove()
    with pytest.warns(UserWarning, match="not signed"), pytest.raises(WeightsMismatch):
        budc.apply(FluxPipeline.from_pretrained(flux_folder), artifact, allow_unsigned=True)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 8, r"steps: the policy was found with 6, flux-tiny is deployed with 8"),
        ("guidance", 5.0, r"guidance: the policy was found with 3.5, flux-tiny is deployed with 5.0"),
        ("scheduler_config", {"max_shift": 1.3}, r"scheduler.max_shift: the policy was found with 1.15"),
    ],
)
def test_another_sampling_is_refused_unless_told_so(
    source: Artifact,
    sibling: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: Any,
    said: str,
) -> None:
    changed = replace(load_profile("flux-tiny"), **{field: value})
    monkeypatch.setattr(module, "choose_model", lambda *_: changed)
    out = tmp_path / "moved.budc.json"
    with pytest.raises(CalibrationMismatch, match=said):
        moved(source, sibling, out)
    assert not out.exists()
    document = moved(source, sibling, out, differing=True).document
    assert document.sampler.steps == 6
    assert document.sampler.guidance == changed.guidance
    assert document.search.settings["differing"] is True


def test_another_family_is_refused_unless_told_so(source: Artifact) -> None:
    profile = replace(load_profile("flux-tiny"), family="other")
    with pytest.raises(UnsupportedModel, match="is of the family flux, flux-tiny of other"):
        check_family(source.document, profile)
    check_family(source.document, profile, differing=True)
    with pytest.raises(
        UnsupportedModel, match=r"has the guidance branches cond, wan2\.1-nano has cond, uncond"
    ):
        check_family(source.document, load_profile("wan2.1-nano"), differing=True)
