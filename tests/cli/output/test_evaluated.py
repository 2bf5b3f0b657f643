"""The page of an evaluation: what stands below a table."""

from pathlib import Path

import msgspec

from budc.cli.output.evaluated import written
from budc.schema.report_names import LATENT_MSE


def test_methods_that_are_ahead_of_the_policy_are_named(make_document, make_evaluation):
    evaluation = make_evaluation(make_document())
    calibrated = evaluation.settings[0]
    policy, full = calibrated.methods
    policy = msgspec.structs.replace(policy, samples={LATENT_MSE: [0.2, 0.4]})
    others = [
        msgspec.structs.replace(policy, name=name, title=title, samples={LATENT_MSE: [0.1, 0.2]})
        for name, title in (("dyweight", "learned"), ("fewer-steps", "fewer steps"))
    ]
    setting = msgspec.structs.replace(calibrated, methods=[policy, *others, full])
    page = written(Path("x"), msgspec.structs.replace(evaluation, settings=[setting]), None)
    lines = page.splitlines()
    assert "ahead of the policy: learned, with 0.5 of its latent error; no policy can express it" in lines
    assert "ahead of the policy: fewer steps, with 0.5 of its latent error" in lines
    assert "ahead" not in written(Path("x"), evaluation, None)


def test_the_full_runs_psnr_has_no_number(make_document, make_evaluation):
    evaluation = make_evaluation(make_document())
    policy, full = evaluation.settings[0].methods
    assert full.metric("psnr") is not None
    rows = {line.split("  ")[0]: line for line in written(Path("x"), evaluation, None).splitlines()}
    assert rows[full.title].count("exact") == 2
    assert "exact" not in rows[policy.title]
