"""A policy with an evaluation beside it, and a trust file of its evaluator."""

import msgspec
import pytest

from budc.schema.artifact import read


@pytest.fixture
def measured(sealed, make_evaluation):
    """A policy, an evaluation in which its loop takes a quarter of the full run's time, and that one's place."""
    path = sealed()
    evaluation = make_evaluation(read(path).document)
    setting = evaluation.settings[0]
    methods = [
        msgspec.structs.replace(method, latency=msgspec.structs.replace(method.latency, median=median))
        for method, median in zip(setting.methods, (0.25, 1.0), strict=True)
    ]
    evaluation = msgspec.structs.replace(
        evaluation, settings=[msgspec.structs.replace(setting, methods=methods)]
    )
    return path, evaluation, path.with_name(f"{path.name.removesuffix('.budc.json')}.evaluation.json")


@pytest.fixture
def evaluators(public, tmp_path):
    """Write a trust file with the key as an evaluator's, after other lines."""

    def write(*lines):
        path = tmp_path / "evaluators.toml"
        key = ("[[keys]]", 'name = "lab"', f'file = "{public.name}"', 'roles = ["evaluator"]')
        path.write_text("\n".join([*lines, *key, ""]))
        return path

    return write
