"""Make the policies that the package brings for its embedded models: `joint --align` at NFE 6, 8, 10 and 14.

    python benchmarks/embedded_policies.py

Compiles them in `--work`, where a killed call goes on when it is repeated, and what is there already is kept: after a
change of how policies are found, start with an empty folder. Then it makes a key, signs with it, forgets the private
half, and writes the signed files, the public key and the list of digests into `--into`, by default the package, which
takes all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from command_line import NUMBERS, PATH, Names, check_budgets, script
from securesystemslib.signer import CryptoSigner

from budc.cli.dependencies import model_libraries
from budc.compiler.compile import compile_artifacts
from budc.compiler.request import CompileRequest
from budc.policies.embedded_policies import FOLDER, KEY, LIST, EmbeddedPolicy, sha256
from budc.schema.artifact import SUFFIX, Artifact, add_signature, read
from budc.schema.files import write_atomic
from budc.schema.signers import public_of

MODELS, BUDGETS = ("flux-nano", "wan2.1-nano"), (6, 8, 10, 14)


def compile_missing(model: str, budgets: Sequence[int], work: Path) -> list[Artifact]:
    """Return the unsigned policies of a model, compiled together unless all of them are in `work`."""
    paths = [work / f"{model}-nfe{budget}{SUFFIX}" for budget in budgets]
    if not all(path.exists() for path in paths):
        sweep = ",".join(map(str, budgets))
        request = CompileRequest(model=model, sweep=sweep, align=True, out=work)
        with model_libraries():
            compile_artifacts(request.resolve())
    return [read(path) for path in paths]


def sign(artifacts: Sequence[Artifact], into: Path) -> None:
    """Write the policies, signed by a new key that is then lost, and the list, which is the last to change."""
    signer = CryptoSigner.generate_ecdsa()
    entries = []
    for artifact in artifacts:
        document, data = artifact.document, add_signature(artifact, signer, replace_others=True)
        model, nfe = document.pipeline().profile, document.budget.nfe
        write_atomic(into / f"{model}-nfe{nfe}{SUFFIX}", data)
        entries.append(EmbeddedPolicy(model=model, nfe=nfe, sha256=sha256(data)))
    write_atomic(into / KEY, public_of(signer).pem)
    write_atomic(into / LIST, msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n")


@script(__doc__)
@click.option("--models", type=Names(MODELS), default=",".join(MODELS), show_default=True)
@click.option("--budgets", type=NUMBERS, default=",".join(map(str, BUDGETS)), show_default=True)
@click.option("--work", type=PATH, default=Path("out/embedded"), show_default=True)
@click.option("--into", type=PATH, help="default: the package")
def main(models: tuple[str, ...], budgets: tuple[int, ...], work: Path, into: Path | None) -> None:
    """Compile what is missing, then sign all of it."""
    check_budgets(models, budgets)
    artifacts = []
    if into is None and (models, budgets) != (MODELS, BUDGETS):
        raise click.UsageError(
            "--into: the package takes all policies at once; give a folder for some of them"
        )
    into = into or FOLDER
    for folder in (work, into):
        folder.mkdir(parents=True, exist_ok=True)
    for index, model in enumerate(models):
        click.echo(f"model {index + 1}/{len(models)}: {model}, NFE {', '.join(map(str, budgets))}", err=True)
        artifacts += compile_missing(model, budgets, work)
    sign(artifacts, into)
    click.echo(f"wrote {len(artifacts)} policies, {LIST} and {KEY} in {into}")


if __name__ == "__main__":
    main()
