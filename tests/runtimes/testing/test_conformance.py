"""Both runtimes under the conformance suite, on untrained weights and their export; on CUDA too."""

import contextlib
import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_folders import export_profile

from budc.runtimes.onnxruntime.noise import seeded_noise
from budc.runtimes.testing import (
    GOLDEN,
    STEPS,
    OnStep,
    RunRecord,
    RuntimeConformance,
    RuntimeUnderTest,
    record_steps,
)
from budc.schema.policy import PolicyDocument

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from budc.compiler.evaluation.precision import full_float32  # noqa: E402
from budc.runtimes.diffusers import apply as diffusers  # noqa: E402
from budc.runtimes.onnxruntime import pipeline as onnxruntime  # noqa: E402
from budc.runtimes.onnxruntime.forwards import LinearCombination  # noqa: E402

PROMPT, SEED = "a small red circle moves left over stripes", 7
PROFILE = export_profile()

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


class DiffusersUnderTest:
    """The pipeline of the folder. A policy stays applied as long as the document is the same."""

    def __init__(self, pipe: Any, folder: Path, document: PolicyDocument) -> None:
        self.pipe, self.folder, self.document = pipe, folder, document
        self._applied: tuple[PolicyDocument, diffusers.AppliedPolicy] | None = None

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        record: RunRecord | None = None,
    ) -> RunRecord:
        record = RunRecord() if record is None else record
        policy, velocities = self._apply(document), []

        def after(pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            cond, uncond = velocities[-2:]
            record.velocities.append({"cond": cond, "uncond": uncond})
            record.latents = on_host(tensors["latents"])
            if on_step is not None and on_step(step) is False:
                pipe._interrupt = True
            return tensors

        def entered(_module: Any, args: Any, kwargs: Any) -> None:
            record.evaluations += len(args[0] if args else kwargs["hidden_states"])

        transformer = self.pipe.transformer
        hooks = [
            transformer.register_forward_hook(lambda _m, _i, output: velocities.append(on_host(output[0]))),
            transformer.blocks[0].register_forward_pre_hook(entered, with_kwargs=True),
        ]
        record.noise = seeded_noise((1, *_latents(PROFILE)), SEED)
        try:
            with record_steps(policy._run.forwards.machine, on_host, record):
                self._call(steps or STEPS, after)
        finally:
            for hook in hooks:
                hook.remove()
        record.held = policy._run.forwards.machine.held
        return record

    def plain(self) -> Any:
        self._remove()
        return on_host(self._call(STEPS))

    @contextlib.contextmanager
    def adapter(self) -> Iterator[None]:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
        self._remove()
        self.pipe.transformer.add_adapter(config, adapter_name="style")
        yield
        self.pipe.transformer.delete_adapters("style")

    def _apply(self, document: PolicyDocument) -> diffusers.AppliedPolicy:
        if self._applied is None or self._applied[0] is not document:
            self._remove()
            policy = diffusers.apply(self.pipe, document, allow_unsigned=True, weights_dir=self.folder)
            self._applied = (document, policy)
        return self._applied[1]

    def _remove(self) -> None:
        if self._applied is not None:
            self._applied[1].remove()
            self._applied = None

    def _call(self, steps: int, after: Any = None) -> Any:
        return self.pipe(
            PROMPT,
            height=PROFILE.height,
            width=PROFILE.width,
            num_frames=PROFILE.frames,
            max_sequence_length=PROFILE.text_tokens,
            guidance_scale=PROFILE.guidance,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
            callback_on_step_end=after,
        ).frames


class OnnxUnderTest:
    """The export. The pipeline stays loaded as long as the document is the same."""

    def __init__(
        self, folder: Path, document: PolicyDocument, plain: Any, scratch: Path, provider: str = "cpu"
    ) -> None:
        self.folder, self.document = folder, document
        self._plain, self._scratch, self._provider = plain, scratch, provider
        self._loaded: tuple[PolicyDocument, onnxruntime.OnnxPipeline] | None = None

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        record: RunRecord | None = None,
    ) -> RunRecord:
        record = RunRecord() if record is None else record
        pipe = self._load(document)
        loop = pipe.denoising_loop(1)

        def after(step: int) -> object:
            record.velocities.append(loop.velocities)
            return None if on_step is None else on_step(step)

        def to_array(cached: LinearCombination) -> Any:
            return sum(c * tensor.read().astype(np.float64) for c, tensor in cached.terms)

        record.noise = seeded_noise((1, *pipe.manifest.latents), SEED)
        with record_steps(loop.machine, to_array, record):
            record.latents = pipe.generate(PROMPT, seed=SEED, steps=steps, on_step=after).latents
        record.evaluations = loop.forwards.get("compute", 0)
        record.held = loop.machine.held
        return record

    def plain(self) -> Any:
        return self._plain()

    @contextlib.contextmanager
    def adapter(self) -> Iterator[None]:
        # An export takes no adapters, but one may be merged into the weights before the export.
        original, self.folder, self._loaded = self.folder, self._scratch / "merged", None
        shutil.copytree(original, self.folder)
        weights = self.folder / "transformer" / "weights.onnx.data"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        yield
        self.folder, self._loaded = original, None

    def _load(self, document: PolicyDocument) -> onnxruntime.OnnxPipeline:
        if self._loaded is None or self._loaded[0] is not document:
            provider = onnxruntime.choose_provider(self._provider, threads=1)
            pipe = onnxruntime.load(document, self.folder, provider=provider, allow_unsigned=True)
            self._loaded = (document, pipe)
        return self._loaded[1]


def on_host(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()


def _latents(profile: Any) -> tuple[int, ...]:
    return 16, (profile.frames - 1) // 4 + 1, profile.height // 8, profile.width // 8


@pytest.fixture(scope="module")
def loaded(wan_folder: Path) -> Any:
    from diffusers import WanPipeline

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    torch.set_num_threads(threads)


PAYLOADS = ["trunk-residual", "velocity"]


# The whole suite with the other payload runs where long tests run: only steps that reuse differ.
@pytest.fixture(scope="module", params=["trunk-residual", pytest.param("velocity", marks=pytest.mark.slow)])
def payload(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(untrained: PolicyDocument, payload: str) -> PolicyDocument:
    return _first(untrained, payload)


@pytest.fixture(scope="module")
def bound(untrained_export: PolicyDocument, payload: str) -> PolicyDocument:
    return _first(untrained_export, payload)


def _first(document: PolicyDocument, payload: str) -> PolicyDocument:
    document = GOLDEN["plain reuse"].document(document)
    policy = msgspec.structs.replace(document.policy, payload=payload)
    return msgspec.structs.replace(document, policy=policy)


def fresh(pipe: Any) -> Any:
    """Return a copy with a denoiser and a scheduler of its own: a policy changes no other component."""
    shared = [part for name, part in pipe.components.items() if name not in ("transformer", "scheduler")]
    return copy.deepcopy(pipe, {id(part): part for part in shared})


class TestDiffusers(RuntimeConformance):
    @pytest.fixture
    def runtime(self, loaded: Any, wan_folder: Path, base: PolicyDocument) -> RuntimeUnderTest:
        return DiffusersUnderTest(fresh(loaded), wan_folder, base)


class TestOnnxRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(
        self, loaded: Any, wan_folder: Path, exported: Path, bound: PolicyDocument, tmp_path: Path
    ) -> RuntimeUnderTest:
        plain = DiffusersUnderTest(loaded, wan_folder, bound).plain
        return OnnxUnderTest(exported, bound, plain, tmp_path)


@pytest.mark.gpu
class TestDiffusersOnCuda(RuntimeConformance):
    @pytest.fixture
    def runtime(self, cuda: Any, loaded: Any, wan_folder: Path, base: PolicyDocument) -> RuntimeUnderTest:
        return DiffusersUnderTest(copy.deepcopy(loaded).to(cuda), wan_folder, base)


@pytest.mark.gpu
class TestOnnxRuntimeOnCuda(RuntimeConformance):
    @pytest.fixture
    def runtime(
        self,
        cuda: Any,
        loaded: Any,
        wan_folder: Path,
        exported: Path,
        bound: PolicyDocument,
        tmp_path: Path,
    ) -> Iterator[RuntimeUnderTest]:
        plain = DiffusersUnderTest(copy.deepcopy(loaded).to(cuda), wan_folder, bound).plain
        with full_float32():
            yield OnnxUnderTest(exported, bound, plain, tmp_path, provider="cuda")


@pytest.mark.parametrize("reused", PAYLOADS)
@pytest.mark.parametrize("name", list(GOLDEN))
def test_both_runtimes_make_the_same_latents(
    name: str,
    reused: str,
    loaded: Any,
    wan_folder: Path,
    exported: Path,
    untrained_export: PolicyDocument,
    tmp_path: Path,
) -> None:
    bound = _first(untrained_export, reused)
    document = GOLDEN[name].document(bound)
    pipe = fresh(loaded)
    expected = DiffusersUnderTest(pipe, wan_folder, document).run(document)
    actual = OnnxUnderTest(exported, document, None, tmp_path).run(document)
    scale = np.abs(expected.latents).max()
    assert np.abs(actual.latents - expected.latents).max() < 1e-5 * scale
    for mine, theirs in zip(actual.steps, expected.steps, strict=True):
        assert (mine.branch, mine.step, mine.action) == (theirs.branch, theirs.step, theirs.action)
        # Cached velocities are tokens in one runtime, latents in the other.
        if bound.policy.payload == "trunk-residual":
            np.testing.assert_allclose(mine.cached, theirs.cached, atol=1e-5 * np.abs(theirs.cached).max())
