"""The documentation as a site: `make docs` builds it, and every warning is an error."""

import importlib.metadata
import re
import sys
from pathlib import Path

from pygments.lexers.data import JsonLexer
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.ext.autodoc import mock
from sphinx.ext.autodoc._dynamic._mock import _MockObject

import budc

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "budc"
author = "the budc authors"
release = importlib.metadata.version("budc")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "mathml"]
exclude_patterns = ["extensions"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # links to headings, named as GitHub names them
suppress_warnings = ["myst.header"]

# The reference is made from docstrings, so the libraries below budc are not imported.
autodoc_mock_imports = [
    "accelerate",
    "diffusers",
    "ftfy",
    "google",
    "imageio",
    "numpy",
    "onnx",
    "onnxruntime",
    "peft",
    "PIL",
]
autodoc_mock_imports += ["psutil", "safetensors", "tokenizers", "torch", "transformers"]
_MockObject.__or__ = _MockObject.__ror__ = lambda self, _other: self  # `torch.Tensor | None` in a signature
with mock(autodoc_mock_imports):
    for name in budc.__all__:  # each is imported where it is first used, which may be outside of autodoc
        getattr(budc, name)
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80
default_role = "code"  # docstrings write code between single backticks

smartquotes = False  # a flag has two dashes

html_theme = "furo"
html_title = f"budc {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False


def name_files(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Show the name of a file above its content: a block that begins with "python denoiser.py" is that file."""
    source[0] = re.sub(
        r"^```(\w+) (\S+)$", r"```{code-block} \1\n:caption: \2\n", source[0], flags=re.MULTILINE
    )


def setup(app: Sphinx) -> None:
    """Tell Sphinx how to show the kinds of files that the pages quote."""
    app.connect("source-read", name_files)
    app.add_lexer("csv", TextLexer)
    app.add_lexer("jsonl", JsonLexer)
