"""Execution providers: the hardware that ONNX Runtime computes on, chosen by name and never replaced.

If a provider cannot start, ONNX Runtime itself falls back to the CPU with one line in its log. Here the provider is
tried on a graph of one node before any model is opened, and refused if it does not start.
"""

import contextlib
import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
from onnx import TensorProto, helper

from budc.runtimes.onnxruntime.cuda_stream import common_stream, turn_on
from budc.runtimes.onnxruntime.wheels import installed_wheels, uninstall, without_cuda
from budc.schema.arguments import described
from budc.schema.errors import ProviderMissing, UnsafeWeights, UsageError
from budc.schema.foreign_error import reason_of
from budc.schema.installation import install

PROVIDERS: Final[Mapping[str, str]] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""What `--provider` takes, and ONNX Runtime's name for it."""

BATCH: Final = "batch"
"""The name that exported graphs give to the extent of the batch."""
OPSET, IR_VERSION = 20, 10
"""Of the small graphs that the runtime builds itself (`model_bytes`)."""

_SLOWER: Final[Mapping[str, list[str]]] = {"cpu": ["SkipLayerNormFusion"], "cuda": []}
"""Graph fusions to leave out: on the CPU, addition and norm take twice as long fused as apart."""
_DEFAULT_SEVERITY, _SILENT = 2, 4
_GET_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]' beside an NVIDIA driver for that CUDA version"


@dataclass(frozen=True)
class Provider:
    """A provider that has started (see `choose_provider`). `threads` are CPU threads: 0 lets ONNX Runtime decide."""

    name: str
    threads: int = 0
    stream: int = 0
    """Address of the CUDA stream that all sessions run on; 0: on their own, or not on CUDA."""
    before_open: Callable[[], object] = field(default=lambda: None, compare=False, repr=False)
    """Called before a file is opened; raises where it is no longer what was verified."""

    @property
    def device(self) -> str:
        """ONNX Runtime's name for the memory that tensors stay in."""
        return self.name

    @property
    def captures(self) -> bool:
        """Whether a run with fixed shapes and addresses can be recorded and replayed (CUDA graphs)."""
        return self.name == "cuda"

    def open(self, model: Path | bytes, *, batch: int = 0, captured: bool = False) -> ort.InferenceSession:
        """Open a graph on this provider.

        Args:
            model: a file that has been verified, or a graph of `model_bytes`.
            batch: the only batch size that the session will run, which fixes all shapes; 0 leaves it open.
            captured: every run will use fixed addresses, so that CUDA graphs may record it if all of it is on
                the device.

        Raises:
            UnsafeWeights: ONNX Runtime cannot read the file.
        """
        if isinstance(model, Path):
            self.before_open()
        if captured and self.captures:
            # A graph with a node on the host cannot be recorded. It is opened without recording below, where any
            # other error is reported too.
            with contextlib.suppress(Exception):
                return _session(model, self, batch, captured=True)
        return _session(model, self, batch)

    def run_turn(self) -> AbstractContextManager[None]:
        """Return a with-block for one run of a session: sessions on a common stream take turns."""
        return turn_on(self.stream)


def choose_provider(name: str, threads: int = 0) -> Provider:
    """Return the provider of that name after starting it once.

    Raises:
        UsageError: no provider has that name.
        ProviderMissing: the installed ONNX Runtime is built without it, or it cannot start on this machine.
    """
    if not isinstance(name, str) or name not in PROVIDERS:
        raise UsageError(f"provider: {described(name)} is not one of {', '.join(PROVIDERS)}")
    if PROVIDERS[name] not in ort.get_available_providers():
        raise ProviderMissing(
            f"provider: the installed ONNX Runtime {ort.__version__} is built without {name}{without_cuda()}",
            remedy=f"{uninstall(installed_wheels())}{install('onnx')}, which brings onnxruntime-gpu",
        )
    if name != "cpu":
        _start(name)
    return Provider(name, threads, common_stream() if name == "cuda" else 0)


def _start(name: str) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [value], [result])
    # `preload_dlls` prints what is missing, and the session logs it over ten lines; the error has the first line.
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    ort.set_default_logger_severity(_SILENT)
    try:
        started = _session(model_bytes(graph), Provider(name, 1)).get_providers()
        reason = (printed.getvalue().splitlines() or ["it did not start"])[0]
    except (RuntimeError, ValueError) as error:
        started, reason = [], reason_of(error)
    finally:
        ort.set_default_logger_severity(_DEFAULT_SEVERITY)
    if PROVIDERS[name] not in started:
        raise ProviderMissing(f"provider: {name} cannot be used on this machine: {reason}", remedy=_GET_CUDA)


def model_bytes(graph: Any) -> bytes:
    """Return a graph made with `onnx.helper` as a serialised ONNX model."""
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="budc"
    )
    return bytes(model.SerializeToString())


def _session(
    model: Path | bytes, provider: Provider, batch: int = 0, *, captured: bool = False
) -> ort.InferenceSession:
    name = provider.name
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = provider.threads
    # Several sessions take turns. A thread pool that spins while it waits would take cores from the one at work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if batch:
        options.add_free_dimension_override_by_name(BATCH, batch)
    settings: dict[str, str] = {}
    if name == "cuda":
        # TF32 keeps 10 bits of the mantissa, too few for the latents to agree with float32.
        settings = {"use_tf32": "0", "enable_cuda_graph": "1" if captured else "0"}
        if provider.stream:
            settings["user_compute_stream"] = str(provider.stream)
    # Nodes without a CUDA kernel, such as shapes of a few integers, run on the CPU provider by design.
    providers = [(PROVIDERS[name], settings)] + ([("CPUExecutionProvider", {})] if name != "cpu" else [])
    source = str(model) if isinstance(model, Path) else model
    try:
        return ort.InferenceSession(
            source, options, providers=providers, enable_fallback=0, disabled_optimizers=_SLOWER[name]
        )
    except Exception as error:
        if not isinstance(model, Path):
            raise
        raise UnsafeWeights(f"{model.name}: ONNX Runtime cannot open it: {reason_of(error)}") from error
