"""`budc run NAME`: the policies that came with the package, believed as it is and as nothing else is."""

import shutil

import pytest

from budc.cli.output.summary import quality
from budc.cli.output.verdict import verdict
from budc.policies.embedded_policies import FOLDER, embedded_policies, embedded_policy
from budc.policies.profile import embedded_folder, load_profile
from budc.schema.artifact import read, seal

PROMPT = ("--prompt", "a large crimson circle at the left over stripes")
(ENTRY, *_) = embedded_policies("flux-nano")
BUDGETS = [entry.nfe for entry in embedded_policies("flux-nano")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder in which the commands run."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def test_a_name_and_a_budget_are_enough_and_no_file_is_written_over(budc, folder):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("torch")
    for seed, name in (("0", "seed0"), ("0", "seed0-2"), ("1", "seed1")):
        outcome = budc("run", "flux-nano", "--nfe", ENTRY.nfe, *PROMPT, "--seed", seed)
        assert outcome.code == 0, outcome.err
        policy = read(ENTRY.path).document
        assert outcome.out.startswith(f"{verdict(policy)}\n\n{quality(policy)}\n\nwrote ")
        assert f"wrote flux-nano-nfe{ENTRY.nfe}-{name}.png, seed {seed}, {ENTRY.nfe} NFE of 50" in outcome.out
    assert "unsigned" not in outcome.err
    pictures = {path.name[15:]: imageio.imread(path) for path in folder.iterdir()}
    assert (pictures["seed0.png"] == pictures["seed0-2.png"]).all()
    assert (pictures["seed0.png"] != pictures["seed1.png"]).any()


def test_a_policy_of_the_package_in_python():
    pytest.importorskip("torch")
    import budc

    pipe = budc.load_pipeline("flux-nano")
    with budc.applied(pipe, budc.embedded_policy("flux-nano", nfe=ENTRY.nfe)) as policy:
        assert f"{ENTRY.nfe} of 50 steps computed" in repr(policy)


@pytest.mark.parametrize(
    ("arguments", "code", "message", "remedy"),
    [
        (("flux-nano",), 2, f"comes with policies of {BUDGETS[0]}", "--nfe"),
        (
            ("flux-nano", "--nfe", "7"),
            2,
            "--nfe 7: flux-nano comes with",
            "budc compile --model flux-nano --budget 7",
        ),
        (("flux-nano", "--nfe", "0"), 2, "0 is not in the range", ""),
        (("wan2.1",), 2, "no policies come with 'wan2.1'", "budc compile --model wan2.1"),
        (("wan3",), 10, "wan3: no such file or folder, and no model of that name", "budc models"),
        (("flux-nano", "--nfe", ENTRY.nfe, "--out", "x.tiff"), 2, "--out", ".png"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(budc, folder, arguments, code, message, remedy):
    outcome = budc("run", *arguments, *PROMPT)
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert remedy in outcome.err
    assert list(folder.iterdir()) == []


def test_a_file_is_a_single_policy(budc):
    outcome = budc("run", ENTRY.path, "--nfe", "6", *PROMPT)
    assert outcome.code == 2
    assert "is a single policy" in outcome.err


def test_a_folder_of_the_name_is_not_asked_but_by_its_path(budc, folder, signer, public):
    """Neither does a policy that lies in it count for the name, nor one of the package for the folder."""
    shutil.copytree(embedded_folder(load_profile("flux-nano")), folder / "flux-nano")
    document = embedded_policy("flux-nano", ENTRY.nfe).document
    (folder / "flux-nano" / "budc").mkdir()
    (folder / "flux-nano" / "budc" / "own.budc.json").write_bytes(seal(document, signer))
    by_path = budc("run", "./flux-nano", "--nfe", ENTRY.nfe, *PROMPT)
    assert by_path.code == 23, by_path.err
    shutil.rmtree(folder / "flux-nano" / "budc")
    by_path = budc("run", "./flux-nano", "--nfe", ENTRY.nfe, *PROMPT)
    assert "no policy is attached to" in by_path.err


@pytest.mark.parametrize("flags", [("--trust", "release.pub"), ("--trust", "trust.toml")])
def test_with_trust_nothing_but_its_keys_counts(budc, public, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trust.toml").write_text('keys = ["release.pub"]\n')
    outcome = budc("run", "flux-nano", "--nfe", ENTRY.nfe, *PROMPT, *flags)
    assert outcome.code == 23, outcome.err


def test_what_the_users_trust_file_denies_is_refused(budc, public):
    assert budc("trust", "add", public).code == 0
    policy_id = embedded_policy("flux-nano", ENTRY.nfe).policy_id
    assert budc("trust", "deny", policy_id).code == 0
    outcome = budc("run", "flux-nano", "--nfe", ENTRY.nfe, *PROMPT)
    assert outcome.code != 0
    assert "the trust file denies" in outcome.err


def test_a_copy_of_the_file_is_one_of_an_untrusted_key(budc, folder):
    shutil.copy(ENTRY.path, "copy.budc.json")
    for source in ("copy.budc.json", ENTRY.path):
        outcome = budc("run", source, *PROMPT, "--allow-unsigned")
        assert outcome.code == 23, outcome.err
    assert FOLDER.joinpath("demonstration.pub").is_file()


def test_other_weights_are_refused(budc):
    weights = embedded_folder(load_profile("wan2.1-nano"))
    outcome = budc("run", "flux-nano", "--nfe", ENTRY.nfe, *PROMPT, "--weights", weights)
    assert outcome.code != 0
    assert "error" in outcome.err
