"""The guide docs/cli.md, held against the commands that it describes."""

import re
from pathlib import Path

import click

from budc.cli.root import root
from budc.compiler.policy_source import make_request, read_source
from budc.schema import errors
from budc.schema.trust import Trust

GUIDE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
TRUST, SOURCE = re.findall(r"```toml\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_policy_source(tmp_path):
    (tmp_path / "policy.toml").write_text(SOURCE)
    request = make_request(read_source(tmp_path / "policy.toml"), {"budget": "8"})
    assert (request.model, request.budget) == ("wan2.1-nano", "8")
    assert request.out == tmp_path / "nano.budc.json"


def test_trust_file(tmp_path, key_pair, budc):
    (tmp_path / "release.pub").write_bytes(key_pair.public)
    assert budc("keygen", "--out", tmp_path / "lab").code == 0
    (tmp_path / "trust.toml").write_text(TRUST)
    trust = Trust.load(tmp_path / "trust.toml")
    assert (len(trust.keys), len(trust.evaluators)) == (1, 1)
    assert trust.minimum_revisions == {"wan2.1-nano-nfe10": 3}
    assert list(trust.names.values()) == ["release", "lab"]
    assert list(trust.families.values()) == [("wan",)]


def test_the_trust_file_in_the_help_is_of_the_same_form(tmp_path, key_pair, budc):
    (tmp_path / "release.pub").write_bytes(key_pair.public)
    lines = budc("trust", "--help").out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("threshold ="))
    end = next(i for i, line in enumerate(lines) if line.startswith("Options"))
    (tmp_path / "trust.toml").write_text("\n".join(line.strip() for line in lines[start:end]))
    trust = Trust.load(tmp_path / "trust.toml")
    assert trust.minimum_revisions == {"wan2.1-nfe10": 3}
    assert list(trust.names.values()) == ["release"]


def test_the_refusal_is_printed_as_shown(budc, sealed, configuration):
    (shown,) = re.findall(
        r"```console\n\$ budc verify nano\.budc\.json --json\n(.*?)```", GUIDE, flags=re.DOTALL
    )
    outcome = budc("verify", sealed(), "--json")
    assert (outcome.err + outcome.out).replace(str(configuration), "~/.config/budc") == shown


def test_the_layers_of_verify_are_those_that_it_prints(budc, sealed, public):
    (sentence,) = re.findall(r"from the outside in: (.*?)\. With", GUIDE, flags=re.DOTALL)
    named = re.findall(r"(?:^|, |and )(\w+)", re.sub(r"\(.*?\)", "", sentence, flags=re.DOTALL))
    record = budc("verify", sealed(), "--trust", public, "--json").record
    assert named == [layer["layer"] for layer in record["layers"]]


def _nested(command):
    return [command, *getattr(command, "commands", {}).values()]


def _commands():
    """Name -> command."""
    context = click.Context(root)
    return {name: root.get_command(context, name) for name in root.list_commands(context)}


def test_every_flag_and_command_exists():
    named = _commands()
    commands = [nested for command in named.values() for nested in _nested(command)]
    flags = {option for command in commands for param in command.params for option in param.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", GUIDE)) <= flags | {"--help"}
    assert set(re.findall(r"budc ([a-z]+)`", GUIDE)) <= named.keys()
    assert {f"[`budc {name}`]" for name in named} <= set(re.findall(r"\[`budc [a-z]+`\]", GUIDE))


def test_every_exit_code_is_explained():
    def tree(kind):
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    table = GUIDE[GUIDE.index("| code |") :]
    for family in errors.BudcError.__subclasses__():
        (row,) = [line for line in table.splitlines() if f"`{family.__name__}`" in line]
        codes = [kind.exit_code for kind in tree(family)]
        assert str(codes[0]) in row
        assert str(max(codes)) in row
        for code in codes[1:]:
            assert re.search(rf"\b{code}\b", row), (family, code)
