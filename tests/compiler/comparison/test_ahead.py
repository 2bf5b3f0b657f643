"""Which methods are ahead of a policy, on values worked out by hand."""

import msgspec
import pytest

from budc.compiler.comparison.ahead import Ahead, methods_ahead
from budc.schema.report_names import LATENT_MSE, POLICY


@pytest.fixture
def setting(make_document, make_evaluation):
    """A function: method -> latent errors on four prompts, as a setting of an evaluation."""
    base = make_evaluation(make_document()).settings[0]

    def setting(**errors):
        methods = [
            msgspec.structs.replace(base.methods[0], name=name, title=name, samples={LATENT_MSE: values})
            for name, values in errors.items()
        ]
        return msgspec.structs.replace(base, methods=methods)

    return setting


def test_a_method_is_ahead_by_more_than_two_paired_standard_errors(setting):
    own = [1.0, 2.0, 4.0, 8.0]
    found = methods_ahead(
        setting(
            **{POLICY: own, "full": [1e-9] * 4},
            # Half the error on each prompt, whatever these are.
            uniform=[0.5, 1.0, 2.0, 4.0],
            teacache=[0.2, 0.4, 0.8, 1.6],
            # Lower on average, but not on each.
            lemica=[0.1, 4.0, 2.0, 8.0],
            magcache=[2.0, 4.0, 8.0, 16.0],
        )
    )
    assert found == [Ahead("teacache", pytest.approx(0.2), False), Ahead("uniform", pytest.approx(0.5), True)]


def test_a_summary_says_nothing(setting):
    assert methods_ahead(setting(**{POLICY: [], "uniform": [0.1, 0.2]})) == []
