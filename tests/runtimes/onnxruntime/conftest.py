"""A policy for the untrained export, and the pipeline that runs it."""

from pathlib import Path
from typing import Any

import pytest

from budc.runtimes.testing import GOLDEN
from budc.schema.policy import PolicyDocument


@pytest.fixture(scope="session")
def unbound(untrained: PolicyDocument) -> PolicyDocument:
    """A policy that lists no export."""
    return GOLDEN["three terms"].document(untrained)


@pytest.fixture(scope="session")
def document(untrained_export: PolicyDocument) -> PolicyDocument:
    """The same, bound to the export."""
    return GOLDEN["three terms"].document(untrained_export)


@pytest.fixture
def pipe(document: PolicyDocument, exported: Path) -> Any:
    """The pipeline that runs it."""
    from onnx_pipelines import opened

    return opened(document, exported)
