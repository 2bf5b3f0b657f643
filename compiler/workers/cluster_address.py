"""Whether Ray answers at an address, where Ray itself would wait for many minutes; and what is shown to it.

Ray's servers speak gRPC, so the first thing that they send is a SETTINGS frame of HTTP/2 (RFC 9113, section 3.4).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from budc.compiler.cluster import endpoint_of
from budc.schema.errors import ClusterUnusable

ANSWER_SECONDS = 10.0
_FRAME_HEADER, _SETTINGS = 9, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
_START = "start Ray there (`ray start --head`), or use --ray local"


def check_answers(where: str, address: str) -> None:
    """Refuse an address where Ray does not answer; `where` is what the user calls it.

    Raises:
        ClusterUnusable: nothing answers there, or something that is not Ray.
    """
    endpoint = endpoint_of(address)
    if endpoint is None:
        return
    try:
        with socket.create_connection(endpoint, ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return
            connection.sendall(_PREFACE)
            answer = connection.makefile("rb").read(_FRAME_HEADER)
    except OSError as error:
        raise ClusterUnusable(
            f"{where}: nothing answers there: {error.strerror or error}", remedy=_START
        ) from error
    if len(answer) < _FRAME_HEADER or answer[3] != _SETTINGS:
        raise ClusterUnusable(f"{where}: what answers there is not Ray", remedy=_START)


def show_token() -> None:
    """Let Ray show the user's token where there is one, as it does for `auto` alone; a cluster without needs none."""
    own = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or own.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
