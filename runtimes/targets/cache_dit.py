"""cache-dit's static mask: its YAML, or the same in Python where the file's name ends in .py.

cache-dit always runs its first block, to measure how much changes, also where a static mask decides. It reuses what the
other blocks added.
"""

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.errors import UsageError

_YAML = """cache_config:
  Fn_compute_blocks: 1
  Bn_compute_blocks: 0
  max_warmup_steps: 0
  num_inference_steps: {steps}
  steps_computation_mask: [{mask}]
  steps_computation_policy: static
"""
_PYTHON = '''"""The policy {name} for cache-dit: `cache_dit.enable_cache(pipe, cache_config=config())`."""

from cache_dit import DBCacheConfig


def config() -> DBCacheConfig:
    """Return the configuration."""
    return DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=0,
        num_inference_steps={steps},
        steps_computation_mask=[{mask}],
        steps_computation_policy="static",
    )
'''

_YAML_USAGE = (
    "cache_dit.enable_cache(pipe, **cache_dit.load_configs('FILE')), or --cache-dit-config FILE of SGLang"
)
_PYTHON_USAGE = "cache_dit.enable_cache(pipe, cache_config=config()), with config imported from FILE"


def configuration(deployment: Deployment) -> Configuration:
    """Return YAML or Python. Raises UsageError: the file's name ends in neither."""
    forms = {".yaml": _YAML, ".yml": _YAML, ".py": _PYTHON}
    if deployment.suffix not in forms:
        raise UsageError(
            f"--out: the file for cache-dit ends in {deployment.suffix or 'nothing'}",
            remedy="end it in .yaml, or in .py",
        )
    mask = deployment.mask
    digits = ", ".join("1" if compute else "0" for compute in mask)
    text = forms[deployment.suffix].format(name=deployment.document.name, steps=mask.steps, mask=digits)
    return Configuration(text, _PYTHON_USAGE if deployment.suffix == ".py" else _YAML_USAGE)


CACHE_DIT = DeploymentTarget(
    name="cache-dit",
    engine="cache-dit",
    version="1.5.3",
    payload="trunk-residual",
    rule="plain",
    first_blocks=1,
    unchecked=(
        "the signature, and whose policy it is",
        "the model: any transformer that it knows takes the file",
        "the number of steps of a run: a shorter mask reuses at all steps after its end",
        "sigmas, guidance, size, precision, prompts and adapters",
    ),
    write=configuration,
)
