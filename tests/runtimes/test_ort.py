"""The small graphs, device memory and providers underneath the ONNX runtime."""

from typing import Any

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime")

from budc.runtimes.ort import provider as providers  # noqa: E402
from budc.runtimes.ort.memory import Buffer, Call  # noqa: E402
from budc.runtimes.ort.provider import Provider, choose_provider  # noqa: E402
from budc.runtimes.ort.update import combination_model, state_rows, update_model  # noqa: E402
from budc.runtimes.solvers import Scheduler  # noqa: E402
from budc.schema.errors import ProviderMissing, UnsafeWeights, UsageError  # noqa: E402
from budc.schema.policy import SamplerBinding  # noqa: E402

CPU = Provider("cpu", 1)
LATENTS = (4, 3, 2, 2)


@pytest.fixture
def sampler(make_document: Any) -> SamplerBinding:
    import msgspec

    own = make_document(steps=5, nfe=2).sampler
    config = {"solver_order": 2, "prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return msgspec.structs.replace(
        own,
        scheduler="UniPCMultistepScheduler",
        config=config,
        sigmas=[0.99, 0.8, 0.6, 0.3, 0.1, 0.0],
        timesteps=[990.0, 800.0, 600.0, 300.0, 100.0],
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("weights", [(1.0,), (5.0, -4.0)], ids=["one branch", "guidance 5"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_update_is_guidance_and_the_solver_in_numpy(
    sampler: SamplerBinding, weights: tuple[float, ...], batch: int, dtype: str
) -> None:
    session = CPU.open(update_model(sampler, weights, LATENTS, batch, dtype))
    random = np.random.default_rng(0)
    latents = random.standard_normal((batch, *LATENTS)).astype(np.float32)
    state = np.zeros((state_rows(sampler), latents.size), np.float32)
    state[0], at = latents.reshape(-1), np.array([0])
    scheduler = Scheduler(sampler)
    for step in range(sampler.steps):
        velocity = random.standard_normal((len(weights) * batch, *LATENTS)).astype(dtype)
        feeds = {"state": state, "velocity": velocity, "step": at}
        state, at, hidden, timestep = session.run(None, feeds)
        parts = np.split(velocity.astype(np.float32), len(weights))
        guided = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        latents = scheduler.step(guided, latents)
        np.testing.assert_allclose(state[0], latents.reshape(-1), atol=1e-5)
        assert at.tolist() == [step + 1]
        assert hidden.dtype == dtype
        for copy in np.split(hidden, len(weights)):
            np.testing.assert_array_equal(copy, state[0].reshape(latents.shape).astype(dtype))
        if step + 1 < sampler.steps:
            assert timestep.tolist() == [sampler.timesteps[step + 1]] * len(hidden)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("coefficients", [(1.0,), (1.5, -0.5), (1.25, -0.5, 0.25)])
def test_combinations_are_added_up_in_float32(coefficients: tuple[float, ...], dtype: str) -> None:
    terms = np.random.default_rng(0).standard_normal((len(coefficients), 2, 5, 3)).astype(dtype)
    session = CPU.open(combination_model(len(coefficients), dtype, (2, 5, 3)))
    feeds = {f"term_{index}": term for index, term in enumerate(terms)}
    combined = session.run(None, feeds | {"coefficients": np.asarray(coefficients, np.float32)})[0]
    expected = np.tensordot(np.asarray(coefficients, np.float32), terms.astype(np.float32), 1)
    assert combined.dtype == dtype
    np.testing.assert_allclose(combined, expected.astype(dtype), rtol=1e-3 if dtype == "float16" else 1e-6)


def test_a_call_reads_and_writes_rows_in_place() -> None:
    session = CPU.open(combination_model(1, "float32", (2, 3)))
    source, target = (Buffer.of(CPU, np.zeros((4, 3), np.float32)) for _ in range(2))
    scale = Buffer.of(CPU, np.array([2.0], np.float32))
    call = Call(
        session, {"term_0": source.rows(1, 3), "coefficients": scale}, {"combined": target.rows(2, 4)}
    )
    source.write(np.arange(12, dtype=np.float32).reshape(4, 3))
    call()
    np.testing.assert_array_equal(target.read()[2:], 2 * source.read()[1:3])
    np.testing.assert_array_equal(target.read()[:2], 0)
    source.write(np.ones((4, 3), np.float32))
    call()
    np.testing.assert_array_equal(target.read()[2:], 2)
    with pytest.raises(AssertionError):
        source.write(np.ones((3, 3), np.float32))


def test_unknown_providers() -> None:
    with pytest.raises(UsageError, match="'tpu' is not one of cpu, cuda"):
        choose_provider("tpu")


def test_a_build_without_the_provider_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderMissing, match="is built without cuda") as refusal:
        choose_provider("cuda")
    assert "pip install 'budc[onnx]'" in refusal.value.remedy
    assert choose_provider("cpu").name == "cpu"


def test_a_silent_fall_back_is_refused(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    real = ort.InferenceSession

    def fallen_back(model: Any, options: Any, **_: Any) -> Any:
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers.PROVIDERS.values()))
    monkeypatch.setattr(ort, "InferenceSession", fallen_back)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("libcublas.so.13 is not there"))
    with pytest.raises(ProviderMissing, match=r"cuda cannot be used.*: libcublas\.so\.13 is not") as refusal:
        choose_provider("cuda")
    assert "onnxruntime-gpu[cuda,cudnn]" in refusal.value.remedy
    assert capfd.readouterr() == ("", "")


def test_cuda_sessions_ask_for_full_precision_and_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **options: asked.append(options))
    Provider("cuda").open(b"", captured=True)
    Provider("cuda").open(b"")
    for options, captured in zip(asked, "10", strict=True):
        name, settings = options["providers"][0]
        assert name == "CUDAExecutionProvider"
        assert settings == {"use_tf32": "0", "enable_cuda_graph": captured}
        assert options["enable_fallback"] == 0


def test_a_graph_that_cannot_be_captured_opens_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    asked: list[str] = []

    def refuse_capture(*_: Any, **options: Any) -> str:
        asked.append(options["providers"][0][1]["enable_cuda_graph"])
        if asked[-1] == "1":
            raise RuntimeError("not all nodes are on the device")
        return "session"

    monkeypatch.setattr(ort, "InferenceSession", refuse_capture)
    assert Provider("cuda").open(tmp_path / "x.onnx", captured=True) == "session"
    assert asked == ["1", "0"]


def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Any) -> None:
    (tmp_path / "compute.onnx").write_bytes(b"nothing")
    with pytest.raises(UnsafeWeights, match=r"compute\.onnx: ONNX Runtime cannot open it"):
        CPU.open(tmp_path / "compute.onnx")


@pytest.mark.gpu
def test_cuda_starts(cuda: object) -> None:
    assert choose_provider("cuda").device == "cuda"
