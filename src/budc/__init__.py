"""budc: compile a diffusion step-caching policy for a fixed budget, ship it signed, run it.

In a script::

    import budc

    pipe = budc.load_pipeline("wan2.1-nano")  # or any diffusers pipeline of your own
    with budc.applied(pipe, "wan2.1-nano-nfe10.budc.json", trust="publisher.pub"):
        video = pipe(prompt, num_inference_steps=50).frames

Importing budc imports nothing heavy: each name is loaded where it is first used. `apply`, `applied`, `AppliedPolicy`,
`load_pipeline`, `compile_policy`, `Compiled`, `run`, `steps`, `evaluate`, `evaluate_folder`, `Evaluated`,
`NetworkEvaluation` and `transfer_policy` need torch, `load_onnx` needs ONNX Runtime.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budc.compiler.api import Compiled, compile_policy
    from budc.compiler.evaluate_folder import Evaluated, evaluate_folder
    from budc.compiler.evaluate_network import NetworkEvaluation, evaluate
    from budc.compiler.network.run import PolicyStep, run, steps
    from budc.compiler.network.transfer import transfer_policy
    from budc.policies.embedded_policies import embedded_policy
    from budc.runtimes.admission.settings import UncalibratedWarning
    from budc.runtimes.admission.trust import UnsignedWarning
    from budc.runtimes.diffusers.apply import AppliedPolicy, applied, apply
    from budc.runtimes.diffusers.pipeline import load_pipeline
    from budc.runtimes.onnxruntime.pipeline import load as load_onnx
    from budc.schema.artifact import open_artifact
    from budc.schema.discover import load_policy
    from budc.schema.errors import BudcError
    from budc.schema.trust import Trust

    __version__: str

_HOMES = {
    "AppliedPolicy": "budc.runtimes.diffusers.apply",
    "BudcError": "budc.schema.errors",
    "Compiled": "budc.compiler.api",
    "Evaluated": "budc.compiler.evaluate_folder",
    "NetworkEvaluation": "budc.compiler.evaluate_network",
    "PolicyStep": "budc.compiler.network.run",
    "Trust": "budc.schema.trust",
    "UncalibratedWarning": "budc.runtimes.admission.settings",
    "UnsignedWarning": "budc.runtimes.admission.trust",
    "applied": "budc.runtimes.diffusers.apply",
    "apply": "budc.runtimes.diffusers.apply",
    "compile_policy": "budc.compiler.api",
    "embedded_policy": "budc.policies.embedded_policies",
    "evaluate_folder": "budc.compiler.evaluate_folder",
    "evaluate": "budc.compiler.evaluate_network",
    "load_onnx": "budc.runtimes.onnxruntime.pipeline",
    "load_pipeline": "budc.runtimes.diffusers.pipeline",
    "load_policy": "budc.schema.discover",
    "open_artifact": "budc.schema.artifact",
    "run": "budc.compiler.network.run",
    "steps": "budc.compiler.network.run",
    "transfer_policy": "budc.compiler.network.transfer",
}
_NAMES_AT_HOME = {"load_onnx": "load"}
"""What a public name is called in its module, where it is not the same."""

__all__ = [
    "AppliedPolicy",
    "BudcError",
    "Compiled",
    "Evaluated",
    "NetworkEvaluation",
    "PolicyStep",
    "Trust",
    "UncalibratedWarning",
    "UnsignedWarning",
    "__version__",
    "applied",
    "apply",
    "compile_policy",
    "embedded_policy",
    "evaluate",
    "evaluate_folder",
    "load_onnx",
    "load_pipeline",
    "load_policy",
    "open_artifact",
    "run",
    "steps",
    "transfer_policy",
]


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("budc")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), _NAMES_AT_HOME.get(name, name))
    else:
        raise AttributeError(f"module 'budc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return every public name, loaded or not."""
    return sorted({*globals(), *__all__})
