"""Compiles by the flags of the command line, in this process."""

from budc.compiler.compile import compile_artifacts
from budc.compiler.policy_source import make_request


def compiled(flags):
    """Compile one policy."""
    (artifact,) = compile_artifacts(make_request({}, flags).resolve())
    return artifact
