"""What format 1.1 added is run where a runtime says so, and refused by name everywhere else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from format_additions import ADDED

from budc.runtimes.admission.additions import APPLY, BIND, ONNX_RUNTIME, REPLAY, RUNS, check_additions
from budc.schema.additions import (
    FURTHER_SHAPES,
    IMAGES,
    NEGATIVE_PROMPT,
    NETWORK,
    NETWORK_CONFIG,
    OWN_SIGMAS,
    QUANTIZATION,
    SCALED_ADAPTERS,
    TARGET,
    TRUNK_OUTPUT,
)
from budc.schema.errors import UnsupportedModel, UnsupportedVersion
from budc.schema.policy import PolicyDocument

MakeDocument = Callable[..., PolicyDocument]


@pytest.mark.parametrize("where", RUNS)
@pytest.mark.parametrize("name", ADDED)
def test_an_addition_that_is_not_run_is_refused_by_its_name(
    make_document: MakeDocument, name: str, where: str
) -> None:
    change, added = ADDED[name]
    document = change(make_document())
    missing = [item for item in added if item not in RUNS[where]]
    if missing:
        error = UnsupportedModel if "model.kind" in missing else UnsupportedVersion
        with pytest.raises(error, match=missing[0].replace(".", r"\.")) as caught:
            check_additions(document, where)
        assert type(caught.value) is error
        return
    check_additions(document, where)
    with pytest.raises((UnsupportedModel, UnsupportedVersion), match=added[0].replace(".", r"\.")):
        check_additions(document, where, without=added)


def test_adapters_that_no_export_holds_have_a_way_to_one(make_document: MakeDocument) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        check_additions(ADDED["adapters"][0](make_document()), BIND)
    assert "fuse them into the weights, save the pipeline, `budc transfer`" in caught.value.remedy


def test_the_specification_says_of_each_addition_who_refuses_it() -> None:
    page = Path(__file__).parents[3] / "docs" / "spec" / "artifact-v1.md"
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    columns = dict(enumerate((APPLY, ONNX_RUNTIME, REPLAY), start=1))
    table = {row[0]: row for row in rows if len(row) == 4}
    said = {
        "`model.kind` (`budc.run` runs networks)": NETWORK,
        "`config` of a denoiser": NETWORK_CONFIG,
        "`quantization` of a denoiser": QUANTIZATION,
        "`model.adapters.scaled`": SCALED_ADAPTERS,
        "`sampler.negativePrompt`": NEGATIVE_PROMPT,
        "`furtherShapes`": FURTHER_SHAPES,
        "`furtherShapes` with own `sigmas` or `branches`": OWN_SIGMAS,
        "`images`": IMAGES,
        "`target`": TARGET,
        "payload `trunk-output`": TRUNK_OUTPUT,
    }
    for text, addition in said.items():
        for index, where in columns.items():
            assert (table[text][index] == "refused") == (addition not in RUNS[where]), (text, where)


def test_the_engine_of_another_target_is_named(make_document: MakeDocument) -> None:
    document = ADDED["target"][0](make_document())
    with pytest.raises(
        UnsupportedVersion, match=r"another engine as its target \(target, sglang\), which budc\.apply"
    ):
        check_additions(document, APPLY)


def test_a_policy_without_additions_runs_anywhere(make_document: MakeDocument) -> None:
    for where in RUNS:
        check_additions(make_document(), where)
