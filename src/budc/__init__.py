"""budc: compile a diffusion step-caching policy for a fixed budget, ship it signed, run it.

    import budc

    trust = budc.Trust.from_pem("publisher.pub")
    with budc.applied(pipe, "wan2.1-nfe10.budc.json", trust=trust):
        video = pipe(prompt, num_inference_steps=50).frames

Importing budc imports nothing heavy: each name is loaded where it is first used, and only `apply`, `applied`,
`compile_policy` and `Compiled` need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budc.compiler.api import Compiled, compile_policy
    from budc.runtimes.diffusers.apply import applied, apply
    from budc.schema.artifact import open_artifact
    from budc.schema.discover import load_policy
    from budc.schema.errors import BudcError
    from budc.schema.trust import Trust

    __version__: str

_HOMES = {
    "BudcError": "budc.schema.errors",
    "Trust": "budc.schema.trust",
    "Compiled": "budc.compiler.api",
    "applied": "budc.runtimes.diffusers.apply",
    "apply": "budc.runtimes.diffusers.apply",
    "compile_policy": "budc.compiler.api",
    "load_policy": "budc.schema.discover",
    "open_artifact": "budc.schema.artifact",
}

__all__ = [
    "BudcError",
    "Compiled",
    "Trust",
    "__version__",
    "applied",
    "apply",
    "compile_policy",
    "load_policy",
    "open_artifact",
]


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("budc")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'budc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return every public name, loaded or not."""
    return sorted({*globals(), *__all__})
