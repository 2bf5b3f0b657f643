"""How an extra of budc is installed: from the package index, or from the checkout that this budc was installed from."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit


def install(extra: str) -> str:
    """Return the command that installs an extra, such as "torch"."""
    found = checkout()
    if found is None:
        return f"pip install 'budc[{extra}]'"
    pins = found / "constraints.txt"
    constrained = f"-c {pins} " if pins.is_file() else ""
    return f"pip install {constrained}-e '{found}[{extra}]'"


def checkout() -> Path | None:
    """Return the folder that budc was installed from, as pip recorded it (PEP 610); None for a wheel."""
    try:
        text = distribution("budc").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    record = json.loads(text) if text else {}
    address = urlsplit(str(record.get("url", "")))
    if "dir_info" not in record or address.scheme != "file":
        return None
    return Path(unquote(address.path))
