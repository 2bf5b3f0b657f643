"""Commands with many flags list them under headings."""

import importlib
import pkgutil

import click
import pytest

from budc.cli.help import OTHER, SECTIONS, SectionedCommand, sectioned
from budc.cli.root import COMMANDS


@pytest.mark.parametrize("name", ["compile", "transfer", "evaluate"])
def test_every_flag_of_a_long_command_is_under_one_heading(name):
    command = getattr(importlib.import_module(f"budc.cli.commands.{name}"), f"{name}_command")
    assert isinstance(command, SectionedCommand)
    context = click.Context(command, info_name=name)
    sections = sectioned(command.get_params(context), context)
    assert [flags.split()[-1] for flags, _ in sections.pop(OTHER)] == ["--help"]
    listed = [flags for records in sections.values() for flags, _ in records]
    visible = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert len(listed) == len(visible)
    assert list(sections) == [heading for heading in SECTIONS if heading in sections]


def test_a_flag_has_one_heading():
    flags = " ".join(SECTIONS.values()).split()
    assert len(flags) == len(set(flags))


def test_the_help_shows_the_headings(budc):
    shown = budc("compile", "--help").out
    assert shown.index("Model options:") < shown.index("Budget options:") < shown.index("Output options:")
    assert shown.count("--budget ") == 1


def test_every_command_is_under_one_heading(budc):
    lines = budc("--help").out.splitlines()
    assert [line.rstrip(":") for line in lines if line.rstrip(":") in COMMANDS] == list(COMMANDS)
    listed = [name for names in COMMANDS.values() for name in names]
    assert len(listed) == len(set(listed))
    modules = pkgutil.iter_modules(importlib.import_module("budc.cli.commands").__path__)
    assert {*listed} == {module.name for module in modules} - {"export_config"}
