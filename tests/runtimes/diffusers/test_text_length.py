"""The length of a text: all that there is where the pipeline pads, the most that there may be where it does not."""

import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import SettingsCheck  # noqa: E402
from budc.runtimes.diffusers.output_checks import OutputChecks  # noqa: E402
from budc.runtimes.sampling.families import FAMILIES  # noqa: E402
from budc.schema.errors import CalibrationMismatch  # noqa: E402


@pytest.fixture
def encoded(make_document):
    """Encode a prompt as the pipeline of a transformer class does, under a policy for 8 tokens."""

    def encode(name, embeds):
        document = make_document()
        (denoiser,) = document.model.denoisers
        document = replace(
            document,
            model=replace(document.model, denoisers=[replace(denoiser, class_name=name)]),
            shape=replace(document.shape, text_tokens=8),
        )
        checks = OutputChecks(None, None, document, SettingsCheck(), FAMILIES[name])
        return checks.encode_prompt(lambda prompt: (embeds, None), "a red box")

    return encode


def test_a_padded_text_has_the_policy_s_length(encoded):
    encoded("WanTransformer3DModel", torch.zeros(1, 8, 4))
    for tokens in (7, 9):
        with pytest.raises(CalibrationMismatch, match=rf"text tokens: .* for 8, this run has {tokens}"):
            encoded("WanTransformer3DModel", torch.zeros(1, tokens, 4))


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("QwenImageTransformer2DModel", lambda tokens: torch.zeros(1, tokens, 4)),
        ("ZImageTransformer2DModel", lambda tokens: [torch.zeros(2, 4), torch.zeros(tokens, 4)]),
    ],
)
def test_a_text_that_is_not_padded_may_be_shorter(encoded, name, texts):
    encoded(name, texts(3))
    encoded(name, texts(8))
    with pytest.raises(CalibrationMismatch, match=r"text tokens: .* for 8, this run has 9"):
        encoded(name, texts(9))
