import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from budc.cli import root
from budc.schema.errors import WeightsMismatch
from budc.schema.installation import install


def test_help_lists_the_commands(budc):
    outcome = budc("--help")
    assert outcome.code == 0
    assert [
        name for name in ("compile", "inspect", "keygen", "models", "run", "verify") if name in outcome.out
    ] == [
        "compile",
        "inspect",
        "keygen",
        "models",
        "run",
        "verify",
    ]


def test_no_command_shows_the_help(budc):
    outcome = budc()
    assert outcome.code == 2
    assert "verify" in outcome.err


def test_version(budc):
    assert budc("--version").out == f"budc {version('budc')}\n"


def test_a_module_of_python_is_the_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "budc", "verify", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 10
    assert "cannot read nowhere" in done.stderr


def test_light_commands_import_nothing_heavy(tmp_path, sealed, public):
    script = """
import sys
import budc
from budc.cli import main
artifact, public, prefix = sys.argv[1:]
for arguments in (["--help"], ["models"], ["inspect", artifact], ["verify", artifact, "--trust", public],
                  ["keygen", "--out", prefix], ["run", "--help"], ["compile", "--help"]):
    assert main(arguments) == 0, arguments
print(*{"torch", "numpy", "diffusers", "transformers", "onnx", "PIL"} & sys.modules.keys(), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(sealed()), str(public), str(tmp_path / "new")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "\n"


def test_a_command_is_imported_when_it_is_called():
    script = """
import sys
from budc.cli import main
heavy = {"rich", "cryptography", "msgspec", "torch", "numpy"}
commands = {name for name in sys.modules if name.startswith("budc.cli.commands.")}
print(sorted(heavy & sys.modules.keys()), sorted(commands))
assert main(["models", "--help"]) == 0
print(sorted(name for name in sys.modules if name.startswith("budc.cli.commands.")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "[] []"
    assert done.stdout.splitlines()[-1] == "['budc.cli.commands.models']"


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_an_error_of_one_line(redirection):
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"{sys.executable} -c 'import sys; from budc.cli import main; sys.exit(main())' models {redirection}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 61, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 2, done.stderr


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("inspect",),
        ("sign", "--key"),
        ("trust", "add"),
        ("trust", "deny"),
        ("compile",),
        ("attach", "x"),
    ],
)
def test_names_that_no_file_can_have_are_refused_in_one_line(budc, command, name):
    outcome = budc(*command, name, *{"sign": ["--key", "x"], "verify": ["--trust", "x"]}.get(command[0], []))
    assert outcome.code in (2, 10, 20, 26, 61)
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 2


def test_a_trust_file_of_a_name_that_is_too_long(budc, sealed, monkeypatch):
    monkeypatch.setenv("BUDC_TRUST", "x" * 300)
    assert budc("verify", sealed()).code == 20
    assert budc("trust", "list").code in (0, 20)


def test_a_closed_pipe_is_quiet(sealed):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from budc.cli import main; sys.exit(main())",
            "inspect",
            str(sealed()),
        ],
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "No such command 'nope'"),
        (["--nope"], "No such option"),
        (["inspect"], "Missing argument"),
        (["run", "x", "--out", "x.png"], "Missing option '--prompt'"),
    ],
)
def test_usage_errors(budc, arguments, said):
    outcome = budc(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert said in outcome.err
    assert "  try: budc" in outcome.err
    assert outcome.out == ""


def test_usage_error_as_json(budc):
    outcome = budc("inspect", "--json")
    assert outcome.record["error"] == "UsageError"
    assert outcome.record["exitCode"] == outcome.code == 2


def test_refusals_have_message_remedy_and_code(budc, monkeypatch):
    def refuse(*_):
        raise WeightsMismatch("a\nb is not c", remedy="do d")

    monkeypatch.setattr("budc.policies.profile.profile_names", refuse)
    outcome = budc("models", "--json")
    assert outcome.err == "error: a?b is not c\n  try: do d\n"
    assert outcome.record == {
        "error": "WeightsMismatch",
        "message": "a?b is not c",
        "remedy": "do d",
        "exitCode": 32,
    }
    assert outcome.code == 32


def test_interrupt(budc, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("budc.policies.profile.profile_names", interrupt)
    outcome = budc("models")
    assert outcome.code == 130
    assert outcome.err.strip() == "interrupted"


@pytest.mark.parametrize("package", ["torch", "diffusers", "ftfy"])
def test_missing_packages_are_named_before_anything_is_loaded(budc, monkeypatch, package, sealed, public):
    monkeypatch.setitem(sys.modules, package, None)
    for arguments in (
        ["compile", "--model", "wan2.1-nano", "--budget", "3", "--json"],
        ["run", sealed(), "--trust", public, "--prompt", "x", "--out", "x.png"],
    ):
        outcome = budc(*arguments)
        assert outcome.code == 60
        assert f"error: {package} is not installed" in outcome.err
        assert install("torch") in outcome.err


def test_a_package_that_is_missing_within_a_command(budc, monkeypatch):
    def absent():
        raise ModuleNotFoundError("No module named 'imageio'", name="imageio")

    monkeypatch.setattr("budc.policies.profile.profile_names", absent)
    assert budc("models").code == 60


def test_other_missing_modules_are_not_disguised(monkeypatch):
    def absent():
        raise ModuleNotFoundError("No module named 'budc.nope'", name="budc.nope")

    monkeypatch.setattr("budc.policies.profile.profile_names", absent)
    with pytest.raises(ModuleNotFoundError, match=r"budc\.nope"):
        root.main(["models"])
