"""A Ray cluster that the slow tests share."""

import pytest
from live_cluster import live_cluster


@pytest.fixture(scope="session")
def cluster():
    with live_cluster(cpus=8) as cluster:
        yield cluster
