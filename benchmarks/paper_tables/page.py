"""docs/paper.md, from the results alone: every figure was measured by the command that stands above it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paper_tables.registry import TABLES

HEAD = """# The paper's tables

<!-- Written by `python benchmarks/paper.py --report`; edit benchmarks/paper_tables/ instead. -->

The tables and figures of [arXiv 2606.13496](https://arxiv.org/abs/2606.13496), each by one command. What stands here
was measured on the embedded models, in a size that takes minutes on two cores. These are small models on few prompts:
the figures say which method is ahead there, and nothing of FLUX.1-dev or Wan2.1. On weights of your own the same
command takes the prompts of the profile, and an accelerator where there is one:

```console
$ python benchmarks/paper.py --table main --model flux.1-dev --weights DIR --budgets 6,8,10
```

The latent error is the geometric mean over held-out prompts of the squared error of the final latents against the
full run; lower is better ([definitions.md](definitions.md#objective)). Other methods are those of
[evaluate.md](evaluate.md#methods), fitted to the same calibration prompts; the paper's search has one prompt, as its
authors ran it, but for the last table. `joint` has `--effort fast`; in the convergence and over calibration prompts,
`thorough`.

Speed-ups are of the denoising loop. What a policy does between forwards weighs more in a model as small
as these, and the machine was not idle: on weights of your own they are others.
"""

PUBLISHED = """
Published figures for FLUX.1-dev, 28 steps, against the full run (BudCache: arXiv 2606.13496; low LPIPS is good):

| method | speed-up | LPIPS | SSIM | PSNR |
|---|---|---|---|---|
| BudCache, 10 NFE | 2.51x | 0.176 | 0.837 | 24.90 |
| BudCache, 9 NFE | 2.74x | 0.202 | 0.820 | 23.59 |
| BudCache, 8 NFE | 3.00x | 0.248 | 0.792 | 22.16 |
| TeaCache | 2.51x | 0.322 | 0.736 | 18.40 |
| MagCache | 2.74x | 0.250 | 0.785 | 20.89 |
| TaylorSeer | 2.82x | 0.449 | 0.645 | 16.09 |
| ERTACache | 3.00x | 0.321 | 0.760 | 20.34 |
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of the page; a table without results is not on it."""
    return HEAD + "".join(_section(name, results[name]) for name in TABLES if name in results)


def _section(name: str, results: Mapping[str, Any]) -> str:
    table = TABLES[name]
    prompts = f"{results['heldOut']} held-out prompts, {results['device']}, torch {results['torch']}"
    calibration = "" if name == "calibration" else f"{results['calibration']} calibration and "
    return (
        f"\n## {table.title}\n\nIn the paper: {table.of_paper[0].lower()}{table.of_paper[1:]}\n\n"
        f"```console\n$ {results['command']}\n```\n\n"
        f"`{results['model']}`, {calibration}{prompts}.\n\n"
        f"{table.module.markdown(results['rows'])}{PUBLISHED if name == 'main' else ''}"
    )
