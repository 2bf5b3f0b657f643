"""A policy for a model folder, evaluated from Python: what `budc evaluate` measures, and what it refuses."""

import contextlib
import inspect

import pytest

torch = pytest.importorskip("torch")

import budc  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.policy_source import make_request  # noqa: E402
from budc.schema.attestation import read_evaluation  # noqa: E402
from budc.schema.errors import BudcError, Unsigned, UsageError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


@pytest.fixture(scope="module")
def evaluated(eight_prompts):
    """Compile a policy and evaluate it on the prompt that it was reported on, with changes to the arguments."""
    flags = eight_prompts | {"mask": "#.##..", "no_frames": True}
    (artifact,) = compile_artifacts(make_request({}, flags).resolve())

    def evaluated(**changes):
        given = {
            "policy": artifact,
            "weights": str(eight_prompts["weights"]),
            "prompts": eight_prompts["held_out"],
            "calibration": eight_prompts["calibration"],
            "no_frames": True,
            "repeats": 0,
            "allow_unsigned": True,
        }
        return budc.evaluate_folder(**given | changes)

    evaluated.artifact = artifact
    return evaluated


def test_it_measures_what_the_report_says_and_resumes(evaluated, tmp_path, key_pair, capsys):
    told = []
    work = tmp_path / "measured"
    given = {"work": work, "against": "uniform", "progress": lambda *event: told.append(event)}
    evaluation = evaluated(**given)
    artifact = evaluated.artifact
    policy, uniform, full = evaluation.document.settings[0].methods
    assert (policy.name, uniform.name, full.name) == ("policy", "uniform", "full")
    assert policy.metrics[0] == artifact.document.quality.metrics[0]
    assert evaluation.document.policy == artifact.policy_id
    ran = {label for label, _, _ in told}
    assert evaluated(**given).document.settings == evaluation.document.settings
    assert ran == {label for label, _, _ in told}
    (tmp_path / "lab.key").write_bytes(key_pair.private)
    path = evaluation.save(tmp_path / "x.evaluation.json", key=tmp_path / "lab.key")
    assert read_evaluation(path).document == evaluation.document
    printed = capsys.readouterr()
    # The bars of diffusers are its own.
    assert (printed.out, "hash" in printed.err, "resume" in printed.err) == ("", False, False)


REFUSED = {
    "a number": ({"samples": "4"}, "samples: '4' is of another kind"),
    "no list of texts": ({"under": [3]}, r"under: a list is of another kind"),
    "rivals": ({"against": ["uniform"]}, r"against: a list is of another kind"),
    "an unknown rival": ({"against": "unifrom"}, r"against: 'unifrom' is no method"),
    "a metric without frames": ({"metrics": "psnr"}, r"no_frames: metrics needs frames"),
    "a device": ({"device": "tpu"}, r"device: 'tpu' is no device"),
    "an offload": ({"offload": "all"}, r"offload: 'all' is of another kind"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_by_its_name(evaluated, changes, message):
    with pytest.raises(UsageError, match=message):
        evaluated(**changes)


def test_whatever_an_argument_is_only_budc_errors_come_out(evaluated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("budc.compiler.evaluate_folder.evaluate", lambda plan: [plan])
    for name in inspect.signature(budc.evaluate_folder).parameters:
        for value in (None, 3, -1, 0.5, "x", "a\0b", b"x", [], [1, "a"], {}, object(), lambda: None):
            with contextlib.suppress(BudcError):
                evaluated(**{name: value})
    with pytest.raises(Unsigned):
        evaluated(allow_unsigned=False)
