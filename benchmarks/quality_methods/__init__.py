"""Methods that `benchmarks/quality.py` compares: one a module, each fitted on calibration prompts alone."""
