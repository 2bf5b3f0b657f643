import msgspec
import pytest

from budc.cli.output.verdict import verdict
from budc.schema.policy import Baseline, Metric


def metric(name, mean, error=0.1, **fields):
    return Metric(name=name, mean=mean, standard_error=error, worst=mean / 2, samples=8, **fields)


@pytest.fixture
def document(make_document):
    def make(metrics, baselines=()):
        document = make_document(steps=6, nfe=3)
        report = msgspec.structs.replace(
            document.quality,
            metrics=metrics,
            baselines=[Baseline(name=name, nfe=nfe, metrics=figures) for name, nfe, figures in baselines],
        )
        return msgspec.structs.replace(document, quality=report)

    return make


@pytest.mark.parametrize(
    ("rival", "sentence"),
    [
        (24.0, "PSNR 30.0 dB (worst 15.0), 6.0 dB ahead of 3 plain steps"),
        (32.0, "PSNR 30.0 dB (worst 15.0), 2.0 dB behind 3 plain steps"),
        (30.1, "PSNR 30.0 dB (worst 15.0), no different from 3 plain steps within the standard error"),
    ],
)
def test_psnr_against_as_many_plain_steps(document, rival, sentence):
    others = [
        ("uniform", 3, [metric("psnr", 10)]),
        ("fewer-steps", 3, [metric("psnr", rival)]),
        ("full", 50, []),
    ]
    assert verdict(document([metric("psnr", 30)], others)) == f"3 of 50 evaluations: {sentence}"


def test_errors_where_no_frames_were_decoded(document):
    own = [metric("latent-mse", 0.02, geometric_mean=0.01)]
    others = [("uniform", 3, [metric("latent-mse", 0.2, geometric_mean=0.05)])]
    assert verdict(document(own, others)) == (
        "3 of 6 evaluations: latent-mse 0.01 (worst 0.01), 5 times less than a uniform mask"
    )


def test_nothing_to_compare_with(document):
    assert verdict(document([metric("psnr", 30)])) == "3 of 6 evaluations: PSNR 30.0 dB (worst 15.0)"
    assert verdict(document([])) == "3 of 6 evaluations: its quality was not measured"


def test_a_policy_that_computes_every_step(make_document):
    assert (
        verdict(make_document(steps=6, nfe=6))
        == "6 of 6 evaluations: every step is computed, as in the full run"
    )


def test_measured_time_of_the_loop(document, make_evaluation):
    policy = document([metric("psnr", 30)])
    evaluation = make_evaluation(policy)
    assert verdict(policy, [evaluation]).endswith("; the loop took as long as that of the full run on cpu")
    setting = evaluation.settings[0]
    methods = [
        msgspec.structs.replace(method, latency=msgspec.structs.replace(method.latency, median=median))
        for method, median in zip(setting.methods, (0.4, 0.92), strict=True)
    ]
    faster = msgspec.structs.replace(evaluation, settings=[msgspec.structs.replace(setting, methods=methods)])
    assert verdict(policy, [faster]).endswith("; the loop took 2.3 times less on cpu")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_commands_say_it(budc, sealed, public, command):
    outcome = budc(command, sealed(), *(["--trust", public] if command == "verify" else []))
    assert outcome.out.splitlines()[0] == "3 of 6 evaluations: latent-mse 0.00014 (worst 0.00056)"
