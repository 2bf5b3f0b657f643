from importlib.metadata import version

import pytest

import budc
from budc.schema import artifact, errors, trust


def test_names_lead_home():
    assert budc.open_artifact is artifact.open_artifact
    assert budc.Trust is trust.Trust
    assert budc.BudcError is errors.BudcError
    assert budc.__version__ == version("budc")


def test_apply_is_the_runtimes():
    pytest.importorskip("torch")
    from budc.runtimes.diffusers.apply import apply as diffusers

    assert budc.apply is diffusers.apply
    assert budc.applied is diffusers.applied


def test_all_names_exist_and_others_do_not():
    assert set(budc.__all__) <= set(dir(budc))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = budc.nope
