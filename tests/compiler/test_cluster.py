"""What the user says of a cluster."""

import pytest

from budc.compiler.cluster import Cluster, endpoint_of, parse_cluster
from budc.schema.errors import UsageError


@pytest.mark.parametrize(
    "address", ["local", "auto", "10.0.0.3:6379", "head:6379", "ray://head:10001", "[::1]:6379"]
)
def test_addresses(address):
    assert parse_cluster(address, 2, 0.5) == Cluster(address, 2, 0.5)


def test_where_an_address_is_asked():
    assert endpoint_of("local") is None
    assert endpoint_of("ray://head:10001") == ("head", 10001)
    assert endpoint_of("[::1]:6379") == ("::1", 6379)


@pytest.mark.parametrize(
    "address", ["", "head", "head:0", "head:99999", "http://head:1", "ray://", "a b:1", "Local"]
)
def test_what_is_no_address(address):
    with pytest.raises(UsageError, match=r"--ray: .* is no address of a Ray cluster"):
        parse_cluster(address, None, None)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ((None, 2, None), "--workers: says how --ray is used"),
        ((None, None, 0.5), "--gpus-per-worker: says how --ray is used"),
        (("local", 0, None), "--workers: is 0"),
        (("local", None, 0.0), "--gpus-per-worker: is 0"),
        (("local", None, 1.5), r"--gpus-per-worker: is 1\.5"),
        (("local", None, float("nan")), "--gpus-per-worker: is nan"),
    ],
)
def test_what_makes_no_sense(given, match):
    with pytest.raises(UsageError, match=match):
        parse_cluster(*given)
