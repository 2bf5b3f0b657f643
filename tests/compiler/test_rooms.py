"""The rooms of the compiler that work on tensors alone import no model library."""

import subprocess
import sys

ROOMS = ("denoisers", "search", "fitting", "storage", "rollouts", "training", "selection")

# Every module in turn, in a process of its own: prints the first that brings in a model library.
IMPORT_ALL = """
import importlib, pkgutil, sys

imported = 0
for room in sys.argv[1:]:
    package = importlib.import_module(f"budc.compiler.{room}")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        imported += 1
        libraries = {"diffusers", "transformers", "accelerate"} & set(sys.modules)
        if libraries:
            sys.exit(f"{module.name} imports {sorted(libraries)}")
print(imported)
"""


def test_rooms_on_tensors_import_no_model_library():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *ROOMS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3 * len(ROOMS), "modules were imported"
