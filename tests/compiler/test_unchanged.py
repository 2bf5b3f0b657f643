"""What four searches find on the embedded model is what they found before: mask, coefficients, sigmas and figures.

    budc compile --model wan2.1-nano --steps 12 --budget 4 --seed 0 --effort thorough --search SEARCH [--align]

`unchanged.json` holds their results. Where a change is meant to alter what a search finds, or how it is measured, write
the file anew from artifacts of that command (with OMP_NUM_THREADS=1) in the same commit, whose message says why the
results differ and whether they are better. Where no change is meant to, a difference here is a mistake: look for it,
and leave the file as it is.
"""

import json
import math
from pathlib import Path

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402

RESULTS = json.loads((Path(__file__).parent / "unchanged.json").read_text())
TOLERANCE = 1e-4
"""Relative: the order of sums differs between processors, and so do the last digits."""
OF_COEFFICIENTS = 1e-5
"""Absolute: those of a row come to about 1 together, so the small ones among them count by their size."""


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def differences(expected, actual, path=""):
    """Return where two JSON values differ: numbers by more than the tolerance, all else at all."""
    if isinstance(expected, dict) and isinstance(actual, dict) and expected.keys() == actual.keys():
        pairs = [(key, expected[key], actual[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = [(index, *values) for index, values in enumerate(zip(expected, actual, strict=True))]
    elif isinstance(expected, float) and isinstance(actual, int | float):
        least = OF_COEFFICIENTS if "/predictor/" in path else 1e-9
        equal = math.isclose(expected, actual, rel_tol=TOLERANCE, abs_tol=least)
        return [] if equal else [f"{path}: {expected} is now {actual}"]
    else:
        return [] if expected == actual else [f"{path}: {expected} is now {actual}"]
    return [line for key, *values in pairs for line in differences(*values, f"{path}/{key}")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dp", "paper", "joint", "joint --align"])
def test_a_search_finds_what_it_found_before(name, tmp_path):
    search, _, align = name.partition(" --")
    request = CompileRequest(
        model="wan2.1-nano",
        steps=12,
        budget="4",
        seed=0,
        search=search,
        effort="thorough",
        align=align == "align",
        out=tmp_path / "policy.budc.json",
    )
    (artifact,) = compile_artifacts(request.resolve())
    document = msgspec.to_builtins(artifact.document)
    actual = {
        "policy": document["policy"],
        "sigmas": document["sampler"]["sigmas"],
        "quality": {part: document["quality"][part] for part in ("metrics", "baselines")},
        "search": {part: document["search"][part] for part in ("candidates", "forwards", "settings")},
    }
    assert not differences(RESULTS[name], actual)


def test_the_comparison_sees_a_changed_mask_and_a_changed_figure():
    result = RESULTS["dp"]
    mask = json.loads(json.dumps(result))
    mask["policy"]["branches"][0]["mask"][1] = True
    assert differences(result, mask) == ["/policy/branches/0/mask/1: False is now True"]
    coefficient = json.loads(json.dumps(result))
    coefficient["policy"]["branches"][0]["predictor"][1][0] += 3 * TOLERANCE
    assert len(differences(result, coefficient)) == 1
    figure = json.loads(json.dumps(result))
    figure["quality"]["metrics"][0]["mean"] *= 1 + 3 * TOLERANCE
    assert len(differences(result, figure)) == 1
    figure["quality"]["metrics"][0]["mean"] = result["quality"]["metrics"][0]["mean"] * (1 + TOLERANCE / 3)
    assert not differences(result, figure)
