"""Several policies of one model on one set of sessions, and the choice between them."""

import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from onnx_pipelines import opened

from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.onnxruntime.pipeline import load
from budc.runtimes.testing import GOLDEN
from budc.schema.errors import RefusedRun, Unsigned, UsageError
from budc.schema.policy import PolicyDocument

PROMPT = "a red circle"
Policies = dict[int, PolicyDocument]


@pytest.fixture(scope="module")
def policies(untrained_export: PolicyDocument) -> Policies:
    """Policies of one, three and six evaluations; the second reuses velocities."""
    documents = [
        GOLDEN[name].document(untrained_export) for name in ("one evaluation", "three terms", "every step")
    ]
    documents[1] = replace(documents[1], policy=replace(documents[1].policy, payload="velocity"))
    return {document.budget.nfe: document for document in documents}


def test_policies_share_sessions_and_each_makes_what_it_makes_alone(
    policies: Policies, exported: Path
) -> None:
    alone = {nfe: opened([document], exported).generate(PROMPT).latents for nfe, document in policies.items()}
    pipe = opened(list(policies.values()), exported)
    np.testing.assert_array_equal(pipe.generate(PROMPT).latents, alone[1])
    for nfe in (3, 6, 1, 3):
        pipe.use(nfe=nfe)
        assert pipe.document is policies[nfe]
        np.testing.assert_array_equal(pipe.generate(PROMPT).latents, alone[nfe])
    assert len({float(latents.sum()) for latents in alone.values()}) == 3
    assert sorted(name for name, _ in pipe._denoiser_sessions._sessions) == ["compute", "reuse"]
    assert pipe.policies == tuple(policies.values())


def test_the_choice_takes_less_than_a_millisecond(policies: Policies, exported: Path) -> None:
    pipe = opened(list(policies.values()), exported)
    taken = []
    for nfe in (3, 6, 1) * 5:
        start = time.perf_counter()
        pipe.use(nfe=nfe)
        taken.append(time.perf_counter() - start)
    # The best of many: the machine may be busy.
    assert min(taken) < 1e-3


def test_wrong_use_is_refused_and_changes_nothing(policies: Policies, exported: Path) -> None:
    first, second, third = policies.values()
    pipe = opened([first, second], exported)
    with pytest.raises(UsageError, match="no policy of 5 evaluations is held") as caught:
        pipe.use(nfe=5)
    assert caught.value.remedy == "one of 1, 3"

    def during(step: int) -> None:
        with pytest.raises(RefusedRun, match="a run under the policy"):
            pipe.use(nfe=3)
        with pytest.warns(UnsignedWarning), pytest.raises(RefusedRun, match="is under way"):
            pipe.replace(third, allow_unsigned=True)

    latents = pipe.generate(PROMPT, on_step=during).latents
    foreign = replace(third, name="foreign", model=replace(third.model, profile="other"))
    for artifacts, message in (
        ([third, third], "both have 6 evaluations"),
        ([foreign], "foreign is for another model"),
        ([], "an empty list"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsignedWarning)
            with pytest.raises(UsageError, match=message):
                pipe.replace(artifacts, allow_unsigned=True)
    with pytest.raises(Unsigned, match="no signature"):
        pipe.replace(third)
    with pytest.raises(UsageError, match="an empty list"):
        load([], exported)
    assert pipe.policies == (first, second)
    np.testing.assert_array_equal(pipe.generate(PROMPT).latents, latents)


def test_policies_are_replaced_and_loops_that_still_fit_are_kept(policies: Policies, exported: Path) -> None:
    first, second, third = policies.values()
    pipe = opened([first, second], exported)
    pipe.generate(PROMPT)
    pipe.use(nfe=3)
    expected = pipe.generate(PROMPT).latents
    kept, changed = pipe.denoising_loop(1), replace(first, name="changed")
    with pytest.warns(UnsignedWarning) as caught:
        pipe.replace([third, second, changed], allow_unsigned=True)
    assert [warning.filename for warning in caught] == [__file__] * 3
    assert pipe.document is third
    assert list(pipe._loops) == [(3, 1)]
    pipe.use(nfe=3)
    assert pipe.denoising_loop(1) is kept
    np.testing.assert_array_equal(pipe.generate(PROMPT).latents, expected)
