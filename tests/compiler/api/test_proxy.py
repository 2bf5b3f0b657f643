"""`compile_policy(proxy=...)`: masks searched on smaller samples of the same network, and what is refused."""

import pytest
from toy_networks import Blocks

from budc.compiler.network import finding
from budc.compiler.selection.proxy import ProxySearch
from budc.schema.errors import JournalCorrupt, UsageError


@pytest.fixture
def smaller(toys):
    """Conditioning and noise of samples with one row in place of two."""
    conditions = toys.conditions(6, shape=(1, 3), seed=2)
    return conditions.embeddings, conditions.noise


@pytest.fixture
def searched(compiled, smaller):
    """Compile with the default search and the proxy."""

    def searched(**changes):
        return compiled(**{"search": "joint", "effort": "fast", "proxy": smaller} | changes)

    return searched


def test_masks_are_searched_on_smaller_samples(searched, toys, tmp_path, monkeypatch):
    seen = []

    class Watched(ProxySearch):
        def find(self, task):
            seen.append((task.conditions, super().find(task)))
            return seen[-1][1]

    monkeypatch.setattr(finding, "ProxySearch", Watched)
    held_out = toys.conditions(4, seed=1)
    made = searched(denoiser=Blocks(), held_out=(held_out.embeddings, held_out.noise))
    ((conditions, found),) = seen
    assert conditions.noise.shape[1:] == (1, 3)
    tried = {point.candidate.mask.compute_steps for point in made.outcome.trace}
    assert set(found.masks) <= tried
    assert made.outcome.forwards.proxy == found.forwards > 0
    settings = made.save(tmp_path / "a.budc.json").document.search.settings
    assert (settings["proxy"], settings["proxyForwards"]) == ("1x3", found.forwards)
    alone = (
        searched(denoiser=Blocks(), proxy=None)
        .save(tmp_path / "b.budc.json", unmeasured=True)
        .document.search
    )
    assert "proxy" not in alone.settings


def test_a_quality_counts_what_every_budget_took_on_them(searched):
    one = searched()
    made = searched(budget=None, quality="latent-mse<=1e-9")
    assert len([note for note in made.outcome.notes if "prompts that judge" in note]) > 1
    assert made.outcome.forwards.proxy > one.outcome.forwards.proxy
    # All budgets share its reference run.
    assert made.outcome.forwards.proxy_reference == one.outcome.forwards.proxy_reference > 0


def test_a_time_searches_on_them_at_the_budget_that_it_leads_to(searched):
    assert searched(budget=None, within=60).outcome.forwards.proxy > 0


def test_a_folder_resumes_with_the_same_smaller_samples_alone(searched, smaller, tmp_path):
    first = searched(weights="a", work=tmp_path)
    again = searched(weights="a", work=tmp_path)
    assert (first.policy, first.outcome) == (again.policy, again.outcome)
    embeddings, noise = smaller
    for proxy in ((embeddings, noise + 1), None):
        with pytest.raises(JournalCorrupt, match="belongs to another compile"):
            searched(weights="a", work=tmp_path, proxy=proxy)


@pytest.mark.parametrize(
    ("change", "message", "remedy"),
    [
        (lambda given: given.embeddings, "proxy: .* is not conditioning and noise", "proxy="),
        (lambda given: (given.embeddings, given.noise[:, 0, 0]), r"proxy\[1\] is float32", "initial latents"),
        (
            lambda given: ({"cond": given.embeddings["cond"]}, given.noise),
            r"proxy\[0\] has the branches",
            "same",
        ),
        (
            lambda given: (given.embeddings, given.noise),
            r"samples of shape \(2, 3\), which are not",
            "none of them",
        ),
        (
            lambda given: (given.embeddings, given.noise[:, :1].repeat(1, 1, 2)),
            r"\(1, 6\), which are",
            "fewer",
        ),
        (lambda given: (given.embeddings, given.noise[:, 0]), r"\(3,\), which are not smaller", "dimensions"),
    ],
)
def test_what_is_no_smaller_size_is_refused(compiled, toys, change, message, remedy):
    given = toys.conditions(4, seed=3)
    with pytest.raises(UsageError, match=message) as caught:
        compiled(search="joint", proxy=change(given))
    assert remedy in caught.value.remedy


def test_a_search_that_is_run_as_published_takes_none(searched):
    with pytest.raises(UsageError, match="proxy: search='uniform' is a method to compare with") as caught:
        searched(search="uniform")
    assert caught.value.remedy == "leave it out, or use search='joint'"
