"""`budc trust`: the user's trust file, from the command line."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.options import PATH, json_option
from budc.cli.trust_store import trust_file
from budc.schema.errors import UsageError
from budc.schema.printable import printable
from budc.schema.roles import ROLES, Role

if TYPE_CHECKING:
    from budc.schema.keys import PublicKey
    from budc.schema.trust import Trust


@click.group("trust")
def trust_command() -> None:
    """Set whose artifacts are believed.

    The trust file is trust.toml in the configuration folder of budc (~/.config/budc on Linux), or the file that the
    variable BUDC_TRUST names. You may also write it by hand; paths in it are relative to it.

    \b
        threshold = 1                          # distinct keys that must have signed
        denied = []                            # ids of policies and evaluations that are refused, whoever signed
        # require-evaluation = "psnr>=30,n>=32"  # refuse policies without such an evaluation

    \b
        [minimum-revision]                     # a lower revision of that name is a rollback
        "wan2.1-nfe10" = 3

    \b
        [[keys]]
        name = "release"
        file = "release.pub"                   # or pem, the key itself
        families = ["wan2.1"]                  # default all, [] none
        roles = ["publisher"]                  # what it may sign: policies (default), or evaluations ("evaluator")
    """


@trust_command.command("add")
@click.argument("key", type=PATH, metavar="PUB")
@click.option("--name", metavar="NAME", help="Your name for the key; default the file's name.")
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="FAMILY",
    help="Believe it for models of this family only; may be given again.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="What it may sign: policies (publisher, the default) or evaluations (evaluator); may be given again.",
)
def add_command(key: Path, name: str | None, families: tuple[str, ...], roles: tuple[Role, ...]) -> None:
    """Trust the public key in the file PUB. The trust file gets a copy of it."""
    from budc.policies import profile
    from budc.schema.keys import load_public
    from budc.schema.trust_edits import changing

    shipped = profile.families() if families else ()
    for family in families:
        if family not in shipped:
            near = difflib.get_close_matches(family, shipped, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f", which are of {', '.join(shipped)}"
            click.echo(printable(f"note: no shipped model is of the family {family}{hint}"), err=True)
    public = load_public(key)
    with changing(trust_file()) as draft:
        draft.add(public, key.stem if name is None else name, families, roles)
    click.echo(f"trusted  {public.fingerprint} in {trust_file()}")


@trust_command.command("remove")
@click.argument("key", metavar="NAME|FINGERPRINT")
def remove_command(key: str) -> None:
    """Stop trusting a key."""
    from budc.schema.trust_edits import changing

    with changing(trust_file()) as draft:
        draft.remove(key)
    click.echo(f"removed  {printable(key)} from {trust_file()}")


@trust_command.command("deny")
@click.argument("policy", metavar="FILE|ID")
@click.option("--undo", is_flag=True, help="Stop denying it.")
def deny_command(policy: str, undo: bool) -> None:
    """Refuse one policy or one evaluation, whoever signed it."""
    from budc.schema.trust_edits import changing

    # What looks like an id is one, whatever files there are: a file of that name must not be denied in its place.
    is_id = policy.startswith("sha256:")
    policy_id = _id_of(Path(policy)) if not is_id and os.path.lexists(policy) else policy
    with changing(trust_file()) as draft:
        if undo:
            draft.allow(policy_id)
        else:
            draft.deny(policy_id)
    click.echo(f"{'allowed' if undo else 'denied '}  {policy_id} in {trust_file()}")


def _id_of(file: Path) -> str:
    """Return the id of the policy or the evaluation in a file."""
    from budc.schema.artifact import read
    from budc.schema.attestation import UNSIGNED_BYTES, is_evaluation, read_evaluation
    from budc.schema.files import read_limited

    content = read_limited(file, UNSIGNED_BYTES)
    return read_evaluation(content).digest if is_evaluation(content) else read(content).policy_id


@trust_command.command("require")
@click.option("--threshold", type=click.IntRange(min=1), help="Distinct keys that must have signed.")
@click.option(
    "--minimum-revision",
    "revisions",
    multiple=True,
    metavar="NAME=N",
    help="Refuse lower revisions of the policy NAME; may be given again.",
)
@click.option(
    "--no-minimum-revision",
    "dropped",
    multiple=True,
    metavar="NAME",
    help="Take back the minimum revision of NAME; may be given again.",
)
@click.option(
    "--evaluation",
    metavar="BOUNDS",
    help="Refuse policies without an evaluation by a trusted evaluator within these bounds, such as psnr>=30,n>=32.",
)
@click.option("--no-evaluation", is_flag=True, help="Take that back.")
def require_command(
    threshold: int | None,
    revisions: tuple[str, ...],
    dropped: tuple[str, ...],
    evaluation: str | None,
    no_evaluation: bool,
) -> None:
    """Require more signatures, newer revisions, or evaluations."""
    from budc.schema.trust_edits import changing

    if evaluation is not None and no_evaluation:
        raise UsageError("--evaluation and --no-evaluation contradict", remedy="give one of them")
    with changing(trust_file()) as draft:
        for name in dropped:
            draft.drop_minimum(name)
        draft.require(threshold=threshold, revisions=[_revision(text) for text in revisions])
        if evaluation is not None or no_evaluation:
            draft.require_evaluation(evaluation)
    click.echo(f"written  {trust_file()}")


@trust_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show whom you trust."""
    from budc.schema.trust import Trust
    from budc.schema.trust_file import read_trust_file

    path = trust_file()
    empty = not os.path.lexists(path) or not read_trust_file(path).keys
    trust = Trust(keys=()) if empty else Trust.load(path)
    click.echo(json.dumps(_record(path, trust), indent=1) if as_json else _page(path, trust))


def _page(path: Path, trust: Trust) -> str:
    from budc.cli.output.tables import fields, table
    from budc.schema.bounds import in_words

    pairs = [("file", printable(str(path))), ("threshold", f"{trust.threshold} of {len(trust.keys)} keys")]
    pairs += [("denied", identity) for identity in sorted(trust.denied)]
    pairs += [
        ("minimum", f"{printable(name)} revision {minimum}")
        for name, minimum in sorted(trust.minimum_revisions.items())
    ]
    if trust.required:
        pairs.append(("evaluation", in_words(trust.required)))
    rows = [
        (
            trust.names.get(key.fingerprint, ""),
            ", ".join(_roles(trust, key)),
            ", ".join(trust.families.get(key.fingerprint, ("all",))) or "none",
            key.algorithm,
            key.fingerprint,
        )
        for key in _all_keys(trust)
    ]
    headers = ("key", "roles", "families", "algorithm", "fingerprint")
    return fields(pairs) + (f"\n\n{table(headers, rows, text=headers)}" if rows else "")


def _record(path: Path, trust: Trust) -> dict[str, object]:
    return {
        "file": str(path),
        "threshold": trust.threshold,
        "denied": sorted(trust.denied),
        "minimumRevisions": dict(trust.minimum_revisions),
        "requiredEvaluation": [str(bound) for bound in trust.required],
        "keys": [
            {
                "name": trust.names.get(key.fingerprint),
                "roles": _roles(trust, key),
                "families": trust.families.get(key.fingerprint),
                "algorithm": key.algorithm,
                "fingerprint": key.fingerprint,
            }
            for key in _all_keys(trust)
        ],
    }


def _all_keys(trust: Trust) -> list[PublicKey]:
    return list(dict.fromkeys((*trust.keys, *trust.evaluators)))


def _roles(trust: Trust, key: PublicKey) -> list[Role]:
    return [role for role, keys in zip(ROLES, (trust.keys, trust.evaluators), strict=True) if key in keys]


def _revision(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise UsageError(
            f"--minimum-revision: {text!r} is not NAME=N", remedy="--minimum-revision wan2.1-nfe10=3"
        )
    return name, int(number)
