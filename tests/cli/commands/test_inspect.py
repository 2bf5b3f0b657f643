from pathlib import Path

import msgspec

from budc.runtimes.sampling.rules import fixed_rows
from budc.schema.artifact import read
from budc.schema.attestation import read_evaluation, seal_evaluation
from budc.schema.evaluation import plain_file
from budc.schema.mask import StepMask
from budc.schema.policy import Budget, PolicyDocument
from budc.schema.predictor import Predictor

GOLDEN = Path(__file__).parents[2] / "golden" / "v1.1"


def test_page_says_what_the_policy_is(budc, sealed):
    path = sealed(steps=28, nfe=7)
    outcome = budc("inspect", path)
    assert outcome.code == 0
    mask = StepMask.uniform(28, 7)
    lines = outcome.out.splitlines()
    row = next(index for index, line in enumerate(lines) if mask.strip() in line)
    start = lines[row].index("█")
    assert lines[row + 1].index("5", start) == start + 5
    assert f"computed  {' '.join(map(str, mask.compute_steps))}".split() == lines[row + 2].split()
    assert "plain reuse" in outcome.out
    assert "7 of 28 steps per branch (cond, uncond) (asked for 7), 4x fewer" in outcome.out
    assert read(path).policy_id in outcome.out
    assert "29, from 1 to 0" in outcome.out
    assert "144 candidates scored, 34,560 transformer forwards" in outcome.out


def test_nothing_is_vouched_for(budc, sealed):
    assert "not verified here" in budc("inspect", sealed()).out
    assert "UNSIGNED" in budc("inspect", sealed(signed=False)).out


def test_quality_table_holds_policy_and_baselines(budc, sealed):
    out = budc("inspect", sealed()).out
    policy, euler = (line.split() for line in out.splitlines() if line.startswith(("this policy", "euler")))
    assert policy == ["this", "policy", "3", "–", "0.00014", "1.4e-05", "–", "0.00056"]
    assert euler == ["euler", "3", "–", "0.0012", "0.00012", "–", "0.0048"]


def test_choices_are_said(budc, sealed, make_document):
    search = make_document().search
    note = "3 evaluations: PSNR 31 ± 0.2 dB (worst 28) on 6 prompts that judge, bound kept"
    changed = msgspec.structs.replace(search, settings={**search.settings, "choice1": note})
    assert f"chosen     {note}" in budc("inspect", sealed(search=changed)).out
    assert "chosen" not in budc("inspect", sealed()).out


def test_predictor_coefficients_are_listed(budc, sealed):
    mask = StepMask.of([True, True, False, True, False])
    predictor = Predictor([(), (), (1.5, -0.5), (), (2.0, -1.25, 0.25)])
    out = budc("inspect", sealed(mask=mask, predictor=predictor), "--verbose").out
    assert "2: +1.5 -0.5   4: +2 -1.25 +0.25" in out
    assert "plain reuse" not in out


def test_markup_from_the_file_is_text(budc, sealed):
    requested = Budget(requested="[bold]3[/bold]", nfe=3, branches={"cond": 3, "uncond": 3})
    out = budc("inspect", sealed(budget=requested, annotations={"note": "[red]beware[/red]"})).out
    assert "(asked for [bold]3[/bold])" in out
    assert "[red]beware[/red]" in out
    assert "\x1b" not in out


def test_page_shows_everything_that_format_1_1_added(budc):
    out = budc("inspect", GOLDEN / "every-addition.budc.json").out
    assert "every-addition" in out
    for shown in (
        "48 x 32 x 9 frames",
        "32 x 48 x 5 frames, sigmas and predictors of its own",
        "style at scale 0.75 in every denoiser, sha256 aaaa",
        "motion at scale -0.5 in transformer, sha256 bbbb",
        "reference, 32 x 32",
        "first-frame",
        "last-frame",
        "sglang-dpcache 0.5.4, attention sdpa, order 1",
        "trunk-output",
        f"evaluation sha256:{'e' * 64}",
    ):
        assert shown in " ".join(out.split()), shown
    assert out.count("this policy") == 3
    assert "''" in next(line for line in out.splitlines() if "negative prompt" in line)
    assert "varied" in budc("inspect", GOLDEN / "negative-prompt-varied.budc.json").out
    out = " ".join(budc("inspect", GOLDEN / "network-by-tensor-root.budc.json").out.split())
    assert "a network without a pipeline" in out
    assert "weights by tensor root sha256:" in out
    assert budc("inspect", GOLDEN / "network-by-tensor-root.budc.json", "--json").code == 0


def test_json_holds_the_whole_document(budc, sealed):
    path = sealed()
    record = budc("inspect", path, "--json").record
    assert record["verified"] is False
    assert record["policyId"] == read(path).policy_id
    assert msgspec.convert(record["document"], PolicyDocument) == read(path).document


def test_a_linear_forecast_is_named(budc, sealed):
    mask = StepMask.uniform(6, 3)
    path = sealed(mask=mask, predictor=Predictor(fixed_rows("linear", mask)))
    assert "linear forecast from the two newest cached tensors" in budc("inspect", path).out


SPEED = "; the loop took 4 times less on cpu"


def test_what_the_loop_took_is_said_as_an_evaluation_beside_it_has_it(
    budc, public, signer, measured, evaluators
):
    path, evaluation, file = measured
    unverified = f"{SPEED}, says {file.name}, which is not verified"

    def sentence(*flags):
        outcome = budc("inspect", path, *flags)
        assert outcome.code == 0, outcome.err
        return outcome.out.splitlines()[0]

    assert "the loop" not in sentence()
    file.write_bytes(plain_file(evaluation))
    assert sentence().endswith(unverified)
    # Signed, but by a publisher.
    file.write_bytes(seal_evaluation(evaluation, signer))
    assert sentence("--trust", public).endswith(unverified)
    trust = ("--trust", evaluators())
    assert sentence(*trust).endswith(SPEED)
    assert budc("inspect", path, "--json", *trust).record["verdict"] == sentence(*trust)
    # Whatever the names, one by a trusted evaluator comes before others.
    file.with_name(file.name.replace(".evaluation", ".a.evaluation")).write_bytes(plain_file(evaluation))
    assert sentence(*trust).endswith(SPEED)
    assert ".a.evaluation.json, which is not verified" in sentence()


def test_an_evaluation_that_is_wrong_says_nothing_of_the_loop(budc, signer, measured, evaluators):
    path, evaluation, file = measured
    signed = seal_evaluation(evaluation, signer)
    denied = ("--trust", evaluators(f'denied = ["{read_evaluation(signed).digest}"]'))
    other = msgspec.structs.replace(evaluation, policy=f"sha256:{'0' * 64}")
    for content, flags in ((plain_file(other), ()), (b"{}", ()), (signed, denied)):
        file.write_bytes(content)
        outcome = budc("inspect", path, *flags)
        assert (outcome.code, "the loop" in outcome.out) == (0, False), content


def test_trust_is_not_for_an_evaluation(budc, public, measured):
    _, evaluation, file = measured
    file.write_bytes(plain_file(evaluation))
    outcome = budc("inspect", file, "--trust", public)
    assert (outcome.code, "is an evaluation" in outcome.err) == (2, True)
