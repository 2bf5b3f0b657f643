"""Update graph, fused steps, device memory and providers of the ONNX runtime."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from budc.runtimes.onnxruntime import cuda_stream  # noqa: E402
from budc.runtimes.onnxruntime import provider as providers  # noqa: E402
from budc.runtimes.onnxruntime.branches import RingBuffer, group_branches, ring_buffer  # noqa: E402
from budc.runtimes.onnxruntime.fused_steps import fuse_steps, rescaled_steps, unfused_steps  # noqa: E402
from budc.runtimes.onnxruntime.io_binding import BoundSession, DeviceTensor  # noqa: E402
from budc.runtimes.onnxruntime.provider import Provider, choose_provider, model_bytes  # noqa: E402
from budc.runtimes.onnxruntime.update_graph import update_model  # noqa: E402
from budc.runtimes.sampling.solvers import Scheduler, solver_matrices  # noqa: E402
from budc.runtimes.testing import BRANCHES  # noqa: E402
from budc.schema.errors import ProviderMissing, UnsafeWeights, UsageError  # noqa: E402
from budc.schema.installation import install  # noqa: E402
from budc.schema.policy import Policy, SamplerBinding  # noqa: E402

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
    fused = unfused_steps(solver_matrices(sampler), [weights] * sampler.steps)
    model = update_model(fused, sampler.timesteps, len(weights), (batch, *LATENTS), dtype)
    session = CPU.open(model)
    random = np.random.default_rng(0)
    latents = random.standard_normal((batch, *LATENTS)).astype(np.float32)
    state = np.zeros((fused.matrices.shape[1], latents.size), np.float32)
    state[0], until = latents.reshape(-1), np.array([0])
    scheduler = Scheduler(sampler)
    for step in range(sampler.steps):
        velocities = random.standard_normal((len(weights) * batch, *LATENTS)).astype(dtype)
        assert until.tolist() == [step]
        feeds = {"state": state, "velocities": velocities, "until": until}
        state, until, hidden, timestep = session.run(None, feeds)
        latents = scheduler.step(guided(weights, velocities), latents)
        np.testing.assert_allclose(state[0], latents.reshape(-1), atol=1e-5)
        assert hidden.dtype == dtype
        for copy in np.split(hidden, len(weights)):
            np.testing.assert_array_equal(copy, state[0].reshape(latents.shape).astype(dtype))
        if step + 1 < sampler.steps:
            assert timestep.tolist() == [sampler.timesteps[step + 1]] * len(hidden)


def guided(weights: Sequence[float], velocities: Any) -> Any:
    branches = np.split(velocities.astype(np.float32), len(weights))
    return sum(weight * velocity for weight, velocity in zip(weights, branches, strict=True))


RESCALED = ((), (1.0,), (), (1.5, -0.5), (0.75,)), ((), (), (0.5, 0.25), (1.25,), (1.0,))


@pytest.mark.parametrize("payload", ["velocity", "trunk-residual"])
def test_guidance_that_is_no_sum_is_scaled_cell_by_cell(sampler: SamplerBinding, payload: Any) -> None:
    policy = Policy.of(payload, dict(zip(BRANCHES, RESCALED, strict=True)))
    groups, batch = group_branches(policy, BRANCHES), 2
    weights = [(5.0, -4.0)] * sampler.steps
    fused = rescaled_steps(solver_matrices(sampler), policy, groups, weights)
    slots = fused.velocities // 2
    assert slots == (2 if payload == "velocity" else 1)
    session = CPU.open(update_model(fused, sampler.timesteps, 2, (batch, *LATENTS), "float32"))
    random = np.random.default_rng(0)
    latents = random.standard_normal((batch, *LATENTS)).astype(np.float32)
    state = np.zeros((fused.matrices.shape[1], latents.size), np.float32)
    state[0], until = latents.reshape(-1), np.array([0])
    held, scheduler = np.zeros((slots, 2, batch, *LATENTS), np.float32), Scheduler(sampler)
    computed: tuple[list[Any], list[Any]] = ([], [])
    for step in range(sampler.steps):
        for branch, rows in enumerate(RESCALED):
            if payload == "trunk-residual" or not rows[step]:
                computed[branch].insert(0, random.standard_normal((batch, *LATENTS)).astype(np.float32))
                held[(len(computed[branch]) - 1) % slots, branch] = computed[branch][0]
        used = [rows[step] if payload == "velocity" and rows[step] else (1.0,) for rows in RESCALED]
        cond, uncond = (
            np.tensordot(row, np.stack(newest[: len(row)]), 1)
            for row, newest in zip(used, computed, strict=True)
        )
        guided = 5 * cond - 4 * uncond
        guided *= np.linalg.norm(cond, axis=-1, keepdims=True) / np.linalg.norm(
            guided, axis=-1, keepdims=True
        )
        latents = scheduler.step(guided, latents)
        assert until.tolist() == [step]
        feeds = {"state": state, "velocities": held.reshape(-1, *LATENTS), "until": until}
        state, until, _, _ = session.run(None, feeds)
        np.testing.assert_allclose(state[0], latents.reshape(-1), atol=1e-5)


SHARED = ((), (1.0,), (), (1.5, -0.5), (1.25, -0.25))
OTHER = ((), (0.5,), (0.75,), (), (2.0, -1.0))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("rows", "ends"),
    [((SHARED, SHARED), {0: 1, 2: 4}), ((SHARED, OTHER), {0: 1, 2: 2, 3: 4})],
    ids=["shared", "separate"],
)
def test_an_update_takes_every_step_up_to_the_next_forward(
    sampler: SamplerBinding, rows: Any, ends: dict[int, int], dtype: str
) -> None:
    policy = velocity_policy(rows)
    groups, batch, weights = group_branches(policy, BRANCHES), 2, (5.0, -4.0)
    fused = fuse_steps(solver_matrices(sampler), policy, groups, [weights] * sampler.steps)
    assert fused.ends == ends
    session = CPU.open(update_model(fused, sampler.timesteps, 2, (batch, *LATENTS), dtype))
    random, state_rows = np.random.default_rng(0), fused.matrices.shape[1]
    latents = random.standard_normal((batch, *LATENTS)).astype(np.float32)
    start = np.zeros((state_rows, latents.size), np.float32)
    start[0], slots = latents.reshape(-1), np.zeros((2, 2, batch, *LATENTS), dtype)
    scheduler, computed, until = Scheduler(sampler), ([], []), np.array([ends[0]])
    for step in range(sampler.steps):
        for branch, (predictor, newest) in enumerate(zip(rows, computed, strict=True)):
            if not predictor[step]:
                newest.insert(0, random.standard_normal((batch, *LATENTS)).astype(dtype))
                slots[(len(newest) - 1) % 2, branch] = newest[0]
        used = [
            np.tensordot(row, np.stack(newest[: len(row)]).astype(np.float32), 1)
            for row, newest in zip((predictor[step] or (1.0,) for predictor in rows), computed, strict=True)
        ]
        latents = scheduler.step(guided(weights, np.concatenate(used)), latents)
        velocities = slots.reshape(-1, *LATENTS)
        if step in ends:
            before = {"state": start, "velocities": velocities, "until": until}
            assert until.tolist() == [ends[step]]
            start, until, _, timestep = session.run(None, before)
            if ends[step] + 1 < sampler.steps:
                assert timestep.tolist() == [sampler.timesteps[ends[step] + 1]] * 4
        # The state after an earlier step of the interval is computed only on request.
        partly = session.run(None, before | {"until": np.array([step])})[0]
        np.testing.assert_allclose(partly[0], latents.reshape(-1), atol=1e-5)
        if step in ends.values():
            np.testing.assert_array_equal(partly, start)


def velocity_policy(rows: Any) -> Policy:
    return Policy.of("velocity", dict(zip(BRANCHES, rows, strict=True)))


def test_a_ring_buffer_has_as_many_slots_as_are_kept() -> None:
    policy = velocity_policy(
        (((), (), (1.0,), (), (1.0, 1.0, 1.0), ()), ((), (1.0,), (), (1.0,), (), (1.0,)))
    )
    assert ring_buffer(policy, "cond") == RingBuffer(slots=3, slot_at=(0, 1, 2, 2, 0, 0))
    assert ring_buffer(policy, "uncond") == RingBuffer(slots=1, slot_at=(0,) * 6)
    everything = velocity_policy((((),) * 3, ((),) * 3))
    assert ring_buffer(everything, "cond_uncond") == RingBuffer(slots=1, slot_at=(0, 0, 0))


def test_a_bound_session_reads_and_writes_rows_in_place() -> None:
    session = CPU.open(doubling())
    source, target = (DeviceTensor.of(CPU, np.zeros((4, 3), np.float32)) for _ in range(2))
    bound = BoundSession(session, {"x": source.rows(1, 3)}, {"y": target.rows(2, 4)})
    source.write(np.arange(12, dtype=np.float32).reshape(4, 3))
    bound.run()
    np.testing.assert_array_equal(target.read()[2:], 2 * source.read()[1:3])
    np.testing.assert_array_equal(target.rows(2, 4).read(), 2 * source.rows(1, 3).read())
    np.testing.assert_array_equal(target.read()[:2], 0)
    source.write(np.ones((4, 3), np.float32))
    bound.run()
    np.testing.assert_array_equal(target.read()[2:], 2)
    with pytest.raises(AssertionError):
        source.write(np.ones((3, 3), np.float32))


def doubling() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    return model_bytes(helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y]))


def test_unknown_providers() -> None:
    with pytest.raises(UsageError, match="'tpu' is not one of cpu, cuda"):
        choose_provider("tpu")


def test_a_build_without_the_provider_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderMissing, match="is built without cuda") as refusal:
        choose_provider("cuda")
    assert install("onnx") in refusal.value.remedy
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


def test_sessions_on_cuda_share_a_stream_and_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **options: asked.append(options))
    provider = Provider("cuda", stream=4096)
    provider.open(b"", captured=True)
    assert asked[0]["providers"][0][1]["user_compute_stream"] == "4096"
    order: list[str] = []

    def run_second() -> None:
        with provider.run_turn():
            order.append("second")

    other = threading.Thread(target=run_second)
    with provider.run_turn():
        other.start()
        other.join(0.2)
        order.append("first")
    other.join(60)
    assert order == ["first", "second"]
    with Provider("cpu").run_turn(), Provider("cpu").run_turn():
        pass


def test_without_the_cuda_runtime_there_is_no_common_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_stream.build_and_package_info, "cuda_version", "0.0", raising=False)
    cuda_stream.common_stream.cache_clear()
    assert cuda_stream.common_stream() == 0
    cuda_stream.common_stream.cache_clear()


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
