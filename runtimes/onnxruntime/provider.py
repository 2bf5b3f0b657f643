"""Provider: the hardware that ONNX Runtime computes on, chosen by name and never replaced by another.

ONNX Runtime falls back to the CPU with no more than a line in its log when a provider cannot start. Here
the choice is tried on a one-node graph before any model is opened, and refused if it did not hold.
"""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
from onnx import TensorProto, helper

from budc.schema.errors import ProviderMissing, UnsafeWeights, UsageError

PROVIDERS: Final[Mapping[str, str]] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""What `--provider` takes, and ONNX Runtime's name for it."""

BATCH: Final = "batch"
"""The name that exported graphs give to the extent of the batch."""
OPSET, IR_VERSION = 20, 10
"""Of the small graphs that the runtime builds itself."""

_SLOWER: Final[Mapping[str, list[str]]] = {"cpu": ["SkipLayerNormFusion"], "cuda": []}
"""Fusions that make a graph slower there: on the CPU addition and norm in one take twice as long as in two."""
_DEFAULT_SEVERITY, _SILENT = 2, 4
_GET_CUDA = (
    "pip install 'onnxruntime-gpu[cuda,cudnn]' beside an NVIDIA driver for that CUDA version, "
    "and pip uninstall onnxruntime if it is there too"
)


@dataclass(frozen=True)
class Provider:
    """A provider that works. `threads` is for the CPU: 0 lets ONNX Runtime decide."""

    name: str
    threads: int = 0

    @property
    def device(self) -> str:
        """The kind of memory that tensors stay in, as ONNX Runtime calls it."""
        return self.name

    @property
    def captures(self) -> bool:
        """Whether a call with fixed shapes and addresses can be recorded and replayed (CUDA graphs)."""
        return self.name == "cuda"

    def open(self, model: Path | bytes, *, batch: int = 0, captured: bool = False) -> ort.InferenceSession:
        """Open a graph on this provider.

        Args:
            model: a file that has been verified, or a graph made here.
            batch: the only batch that it will run, so that its shapes are fixed; 0 leaves them open.
            captured: every call binds fixed memory. CUDA graphs are used where the whole graph allows them.

        Raises:
            UnsafeWeights: ONNX Runtime cannot read the file.
        """
        if captured and self.captures:
            # A graph that leaves the device in between, for shapes say, opens without capture only. What else may be
            # wrong with it is said then.
            with contextlib.suppress(Exception):
                return _session(model, self.name, self.threads, batch, captured=True)
        return _session(model, self.name, self.threads, batch)


def choose_provider(name: str, threads: int = 0) -> Provider:
    """Return the provider of that name, tried out.

    Raises:
        UsageError: there is none of that name.
        ProviderMissing: it is not in the installed ONNX Runtime, or cannot start on this machine.
    """
    if name not in PROVIDERS:
        raise UsageError(f"provider: {name!r} is not one of {', '.join(PROVIDERS)}")
    if PROVIDERS[name] not in ort.get_available_providers():
        raise ProviderMissing(
            f"provider: the installed ONNX Runtime {ort.__version__} is built without {name}",
            remedy="pip uninstall onnxruntime, then pip install 'budc[onnx]', which brings onnxruntime-gpu",
        )
    if name != "cpu":
        _try_out(name)
    return Provider(name, threads)


def _try_out(name: str) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [value], [result])
    # What is missing is printed by one and logged by the other, in ten lines; the refusal has the first.
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    ort.set_default_logger_severity(_SILENT)
    try:
        started = _session(encoded(graph), name, 1).get_providers()
        reason = (printed.getvalue().splitlines() or ["it did not start"])[0]
    except (RuntimeError, ValueError) as error:
        started, reason = [], str(error).splitlines()[0]
    finally:
        ort.set_default_logger_severity(_DEFAULT_SEVERITY)
    if PROVIDERS[name] not in started:
        raise ProviderMissing(f"provider: {name} cannot be used on this machine: {reason}", remedy=_GET_CUDA)


def encoded(graph: Any) -> bytes:
    """Return a graph made with `onnx.helper` as the bytes of a model."""
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="budc"
    )
    return bytes(model.SerializeToString())


def _session(
    model: Path | bytes, name: str, threads: int, batch: int = 0, *, captured: bool = False
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Several sessions take turns: a pool that spins while it waits takes the cores from the one at work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if batch:
        options.add_free_dimension_override_by_name(BATCH, batch)
    settings: dict[str, str] = {}
    if name == "cuda":
        # TF32 keeps 10 bits of the mantissa: latents would leave those of float32.
        settings = {"use_tf32": "0", "enable_cuda_graph": "1" if captured else "0"}
    # What has no CUDA kernel (shapes of a few integers) is placed on the CPU provider by design.
    providers = [(PROVIDERS[name], settings)] + ([("CPUExecutionProvider", {})] if name != "cpu" else [])
    source = str(model) if isinstance(model, Path) else model
    try:
        return ort.InferenceSession(
            source, options, providers=providers, enable_fallback=0, disabled_optimizers=_SLOWER[name]
        )
    except Exception as error:
        if not isinstance(model, Path):
            raise
        reason = str(error).splitlines()[0]
        raise UnsafeWeights(f"{model.name}: ONNX Runtime cannot open it: {reason}") from error
