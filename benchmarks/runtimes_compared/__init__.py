"""What `benchmarks/runtimes.py` measures, and how: one module a runtime, both seen as a loop."""
