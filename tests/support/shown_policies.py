"""Policies to show: with a report as a compile writes it, and a folder of them in which every free text is markup."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from evaluations import MakeEvaluation
from kept_frames import keep

from budc.schema.artifact import seal
from budc.schema.evaluation import EvaluationDocument, Latency
from budc.schema.policy import Baseline, Metric, PolicyDocument

MARKUP = "</script><img src=x onerror=alert(1)><b>$\\frac{1}$"
"""What a careless page would take for markup, and a careless chart for a formula."""

MakeReported = Callable[..., PolicyDocument]


def _metric(name: str, mean: float, worst: float, **fields: Any) -> Metric:
    return Metric(name=name, mean=mean, standard_error=abs(mean) / 50, worst=worst, samples=4, **fields)


def _metrics(error: float, psnr: float, unit: str = "dB") -> list[Metric]:
    return [
        _metric("latent-mse", error, 4 * error, geometric_mean=error / 2),
        _metric("psnr", psnr, psnr - 9, unit=unit),
    ]


@pytest.fixture(scope="session")
def make_reported(make_document: Callable[..., PolicyDocument]) -> MakeReported:
    """A function that returns a policy with PSNR and the baselines of a compile; `text` is every free text of it."""

    def make(nfe: int = 3, text: str = "dB") -> PolicyDocument:
        document = make_document(nfe=nfe)
        report = msgspec.structs.replace(
            document.quality,
            metrics=_metrics(0.01 / nfe, 33.0 + nfe, text),
            baselines=[
                Baseline(name="uniform", nfe=nfe, metrics=_metrics(0.08 / nfe, 25.0 + nfe)),
                Baseline(name="fewer-steps", nfe=nfe, metrics=_metrics(0.04 / nfe, 28.0 + nfe)),
                Baseline(name="full", nfe=6, metrics=[_metric("latent-mse", 0, 0, geometric_mean=0)]),
            ],
        )
        search = msgspec.structs.replace(document.search, settings={"choice": text}, versions={"torch": text})
        return msgspec.structs.replace(
            document, name=f"tiny-nfe{nfe}", quality=report, search=search, annotations={"note": text}
        )

    return make


def _marked_up(evaluation: EvaluationDocument) -> EvaluationDocument:
    """Return an evaluation of one setting and three methods, whose free texts are markup."""
    setting = evaluation.settings[0]
    policy, full = setting.methods
    latency = Latency(median=0.2, fastest=0.2, slowest=0.2, repeats=3)
    policy = msgspec.structs.replace(policy, title=MARKUP, latency=latency)
    rival = msgspec.structs.replace(policy, name="fewer-steps")
    setting = msgspec.structs.replace(setting, methods=[policy, rival, full])
    return msgspec.structs.replace(evaluation, device=MARKUP, versions={"torch": MARKUP}, settings=[setting])


@pytest.fixture(scope="session")
def marked_up(
    tmp_path_factory: pytest.TempPathFactory, make_reported: MakeReported, make_evaluation: MakeEvaluation
) -> Path:
    """A folder with two policies, of 3 and 4 evaluations, and an evaluation with frames; every free text in them is
    `MARKUP`.
    """
    folder = tmp_path_factory.mktemp("marked-up")
    for nfe in (3, 4):
        (folder / f"tiny-nfe{nfe}.budc.json").write_bytes(seal(make_reported(nfe, MARKUP), None))
    path = folder / "tiny-nfe3.evaluation.json"
    evaluation = keep(_marked_up(make_evaluation(make_reported(3, MARKUP))), path, MARKUP)
    path.write_bytes(msgspec.json.encode(evaluation))
    return folder
