"""Count what a forward of every shipped model takes, for `budc plan`, and write policies/costs.json.

python benchmarks/count_costs.py [--models wan2.1,flux.1-dev]
"""

from pathlib import Path

import click
import msgspec
from command_line import Names, script

from budc.compiler.planning.cost import model_cost
from budc.policies.costs import COSTS_FILE, Cost, costs
from budc.policies.profile import embedded_folder, load_profile, profile_names

FILE = Path(__file__).parents[1] / "policies" / COSTS_FILE


def counted(name: str) -> Cost:
    """Return the cost of a shipped model, with that of a gradient."""
    profile = load_profile(name)
    folder = embedded_folder(profile) if profile.embedded else None
    return model_cost(profile, folder, gradients=True)


@script(__doc__)
@click.option(
    "--models",
    type=Names(profile_names()),
    default=",".join(profile_names()),
    help="which to count; others are kept",
)
def main(models: tuple[str, ...]) -> None:
    """Count and write."""
    known = dict(costs()) if FILE.is_file() else {}
    for name in models:
        known[name] = counted(name)
        print(name, msgspec.json.encode(known[name]).decode(), flush=True)
        written = {name: known[name] for name in profile_names() if name in known}
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n")


if __name__ == "__main__":
    main()
