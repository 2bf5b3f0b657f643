"""The help of commands with many flags: flags under headings, in place of one long list."""

from __future__ import annotations

import click

SECTIONS: dict[str, str] = {
    "Model": "--model --to --weights --download --lora --quantize --dtype --rehash",
    "Budget": "--budget --sweep --quality --worst --within",
    "Policy": (
        "--search --effort --proxy --mask --fit --align --train --loss --branches --for --frozen --nearby --native"
    ),
    "Deployment": (
        "--steps --shape --height --width --frames --text-tokens --guidance --scheduler --negative --allow-differences"
    ),
    "Prompt and seed": "--calibration --calibration-size --held-out --held-out-size --prompts --samples --seed",
    "Measurement": "--metrics --metric-weights --against --under --repeats",
    "Signature": "--trust --allow-unsigned --key --public",
    "Output": (
        "--out --name --revision --no-frames --keep-frames --report --trace --summary --progress --verbose --json"
    ),
    "Device": "--device --offload --states --ray --workers --gpus-per-worker --batch --shard --merge",
}
"""Heading -> flags under it. A flag means the same in every command, so it has one heading for all of them."""
OTHER = "Other"


def sectioned(parameters: list[click.Parameter], context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Return heading -> (flags, help) of each option, in the order of `SECTIONS`; hidden options are left out."""
    headings = {flag: heading for heading, flags in SECTIONS.items() for flag in flags.split()}
    sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*SECTIONS, OTHER)}
    for parameter in parameters:
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)):
            named = (headings[flag] for flag in parameter.opts if flag in headings)
            sections[next(named, OTHER)].append(record)
    return {heading: records for heading, records in sections.items() if records}


class SectionedCommand(click.Command):
    """A command whose `--help` lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section after another."""
        for heading, records in sectioned(self.get_params(ctx), ctx).items():
            with formatter.section(f"{heading} options"):
                formatter.write_dl(records)
