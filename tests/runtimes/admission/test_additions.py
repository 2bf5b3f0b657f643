"""What format 1.1 added is run where a runtime says so, and refused by name everywhere else."""

from collections.abc import Callable

import pytest
from format_additions import ADDED

from budc.runtimes.admission.additions import check_additions
from budc.schema.errors import UnsupportedModel, UnsupportedVersion
from budc.schema.policy import PolicyDocument

MakeDocument = Callable[..., PolicyDocument]


@pytest.mark.parametrize("name", ADDED)
def test_an_addition_that_is_not_run_is_refused_by_its_name(make_document: MakeDocument, name: str) -> None:
    change, added = ADDED[name]
    document = change(make_document())
    for missing in added:
        error = UnsupportedModel if missing == "model.kind" else UnsupportedVersion
        with pytest.raises(error, match=missing.replace(".", r"\.")) as caught:
            check_additions(document, "this runtime", set(added) - {missing})
        assert type(caught.value) is error
    check_additions(document, "this runtime", added)


def test_the_engine_of_another_target_is_named(make_document: MakeDocument) -> None:
    document = ADDED["target"][0](make_document())
    with pytest.raises(
        UnsupportedVersion, match=r"another engine as its target \(target, sglang\), which budc run"
    ):
        check_additions(document, "budc run", ())


def test_a_policy_without_additions_runs_anywhere(make_document: MakeDocument) -> None:
    check_additions(make_document(), "this runtime", ())
