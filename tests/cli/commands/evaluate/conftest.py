"""Policies for the tiny FLUX, and `budc evaluate` of them."""

from functools import cache

import pytest


@pytest.fixture(scope="session")
def compiled(budc, tmp_path_factory, flux_folder):
    """A uniform policy for the tiny FLUX, unsigned: made once for the same profile and flags."""

    @cache
    def compile_(profile, *flags):
        path = tmp_path_factory.mktemp("policy") / "policy.budc.json"
        given = ("--budget", "3", "--search", "uniform", "--weights", flux_folder, "--out", path)
        outcome = budc("compile", "--model", profile, *given, *flags)
        assert outcome.code == 0, outcome.err
        return path

    return compile_


@pytest.fixture
def evaluate(budc, flux_folder, tmp_path):
    """Evaluate without a signature, into one folder; return the outcome."""

    def call(*arguments):
        out = tmp_path / "evaluation"
        return budc("evaluate", *arguments, "--allow-unsigned", "--weights", flux_folder, "--out", out)

    return call
