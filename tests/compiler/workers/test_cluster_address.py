"""Addresses where nothing answers, or something that is not Ray; and the token that is shown there."""

import os
import socket
import threading
from contextlib import contextmanager

import pytest

from budc.compiler.workers import cluster_address
from budc.compiler.workers.cluster_address import check_answers, show_token
from budc.schema.errors import ClusterUnusable

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def answering(answer):
    """Listen, say this to whoever comes, and hang up; None says nothing, and waits. Yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                if answer is not None:
                    connection.sendall(answer)
                connection.recv(24 + len(SETTINGS))
                if answer is None:
                    connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_speaks_http2_may_be_ray(scheme):
    with answering(SETTINGS) as address:
        check_answers("--ray", scheme + address)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", SETTINGS[:5], b""])
def test_what_says_something_else_is_not_ray(answer):
    with (
        answering(answer) as address,
        pytest.raises(ClusterUnusable, match="--ray x: what answers there is not Ray"),
    ):
        check_answers("--ray x", address)


def test_what_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(cluster_address, "ANSWER_SECONDS", 0.1)
    with answering(None) as address, pytest.raises(ClusterUnusable, match="nothing answers there: timed out"):
        check_answers("--ray x", address)


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, None),
        ({"RAY_AUTH_TOKEN": "secret"}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": "token"}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": "none"}, None),
        ({"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_MODE": "disabled"}, "disabled"),
    ],
)
def test_a_token_is_shown_where_there_is_one_and_the_user_has_not_said_otherwise(
    given, mode, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    show_token()
    assert os.environ.get("RAY_AUTH_MODE") == mode
