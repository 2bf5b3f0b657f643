"""Prompt sets of the user's own: seeds and negative prompts of a line, and nothing in common between the sets."""

import pytest
from pictures import write_picture, write_prompts

from budc.policies.profile import load_profile
from budc.policies.prompt_sets import PromptSource, read_samples
from budc.policies.samples import Sample
from budc.schema.errors import UsageError

WAN = load_profile("wan2.1-nano")
FROM_IMAGES = load_profile("wan2.1-i2v-14b-480p")


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


# Images ---------------------------------------------------------------------------------------------------


def test_an_image_is_known_by_its_content(tmp_path):
    calibration = PromptSource(write_prompts(tmp_path, "cal.csv", {"a star": 1, "a ring": 2}))
    held_out = PromptSource(write_prompts(tmp_path, "held.csv", {"a box": 3}))
    sets = read_samples(FROM_IMAGES, calibration, held_out)
    first, second = (sample.image for sample in sets.calibration)
    assert first.path == str(tmp_path / "1.png")
    assert first.digest.startswith("sha256:")
    assert first.digest != second.digest
    same = PromptSource(write_prompts(tmp_path, "same.csv", {"a box": 2}))
    with pytest.raises(
        UsageError, match=r"same\.csv, line 2: the image sha256:\w+ is also that of .*cal\.csv, line 3"
    ):
        read_samples(FROM_IMAGES, calibration, same)


def test_a_model_that_starts_from_images_needs_one_a_prompt(source, tmp_path):
    with pytest.raises(UsageError, match="480p starts from images, and its profile names none") as refused:
        read_samples(FROM_IMAGES)
    assert refused.value.remedy.startswith("--calibration FILE, a .csv or .jsonl file")
    write_picture(tmp_path / "1.png")
    for name, content, line in [
        ("a.txt", "a star\n", 1),
        ("a.csv", "prompt,image\na star,1.png\na ring,\n", 3),
        ("b.csv", "prompt\na star\n", 2),
        ("a.jsonl", '{"prompt": "a star", "image": "1.png"}\n\n{"prompt": "a ring"}\n', 3),
    ]:
        with pytest.raises(
            UsageError, match=rf"{name}, line {line}: no image, but wan2\.1-i2v-14b-480p starts"
        ):
            read_samples(FROM_IMAGES, source(name, content))


def test_a_model_of_prompts_alone_takes_no_images(source, tmp_path):
    write_picture(tmp_path / "1.png")
    mine = source("mine.csv", "prompt,image\na star,\na ring,1.png\n")
    with pytest.raises(
        UsageError, match=r"mine\.csv, line 3: has an image, but wan2\.1-nano starts from the prompt"
    ):
        read_samples(WAN, mine)


def test_an_image_that_cannot_be_used_is_refused_by_its_line(source):
    mine = source("mine.csv", "prompt,image\na star,gone.png\n")
    with pytest.raises(UsageError, match=r"mine\.csv, line 2: cannot read the image: .*gone\.png") as refused:
        read_samples(FROM_IMAGES, mine)
    assert "relative to that file" in refused.value.remedy
