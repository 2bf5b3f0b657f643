"""Prompt sets of the user's own: seeds and negative prompts of a line, and nothing in common between the sets."""

import pytest

from budc.policies.profile import load_profile
from budc.policies.prompt_sets import PromptSource, read_samples
from budc.policies.samples import Sample
from budc.schema.errors import UsageError

WAN = load_profile("wan2.1-nano")


@pytest.fixture
def source(tmp_path):
    def source(name, content, size=None):
        (tmp_path / name).write_text(content)
        return PromptSource(tmp_path / name, size)

    return source


def test_the_profile_s_own_sets_are_taken_to_its_sizes_or_the_user_s():
    sets = read_samples(WAN)
    assert (len(sets.calibration), len(sets.held_out)) == (32, 64)
    assert (sets.calibration[1].seed, sets.held_out[1].seed) == (10_001, 20_001)
    sets = read_samples(WAN, PromptSource(size=40), PromptSource(size=2))
    assert (len(sets.calibration), len(sets.held_out)) == (40, 2)


def test_a_line_s_own_seed_and_negative_prompt_win(source):
    calibration = source("a.csv", "prompt,seed,negative_prompt\na red box,7,dark\na blue ring,,\n")
    held_out = source(
        "b.jsonl", '{"prompt": "a star", "negative_prompt": ""}\n{"prompt": "a house", "seed": 8}\n'
    )
    sets = read_samples(WAN, calibration, held_out)
    assert sets.calibration == (Sample("a red box", "dark", 7), Sample("a blue ring", "", 10_001))
    assert sets.held_out == (Sample("a star", "", 20_000), Sample("a house", "", 8))
    assert len(read_samples(WAN, calibration._replace(size=1), held_out).calibration) == 1


@pytest.mark.parametrize(
    ("calibration", "held_out", "message"),
    [
        (
            "prompt\na star\na red box\n",
            "prompt\na ring\na red box\n",
            r"held\.csv, line 3: the prompt 'a red box' is also that of .*cal\.csv, line 3",
        ),
        (
            "prompt,seed\na star,1\na red box,42\n",
            "prompt,seed\na ring,42\n",
            r"held\.csv, line 2: the seed 42 is also that of .*cal\.csv, line 3",
        ),
        (
            "prompt\na star\n",
            "prompt,seed\na ring,10000\n",
            r"line 2: the seed 10000 is also that of .*line 2",
        ),
    ],
    ids=["prompt", "seed", "the seed of a line without one"],
)
def test_sets_with_a_prompt_or_a_seed_in_common_are_refused(source, calibration, held_out, message):
    with pytest.raises(UsageError, match=message):
        read_samples(WAN, source("cal.csv", calibration), source("held.csv", held_out))


def test_a_shipped_prompt_cannot_be_in_the_other_set(source):
    shipped = read_samples(WAN).held_out[3].prompt
    with pytest.raises(UsageError, match=r"nano-held-out\.txt, line 4: .*mine\.txt, line 2"):
        read_samples(WAN, source("mine.txt", f"a red box\n{shipped}\n"))


def test_a_model_without_negative_prompts_takes_none_of_a_file(source):
    mine = source("mine.csv", "prompt,negative_prompt\na star,\na red box,dark\n")
    with pytest.raises(UsageError, match=r"mine\.csv, line 3: flux-nano has no negative prompt"):
        read_samples(load_profile("flux-nano"), mine)
