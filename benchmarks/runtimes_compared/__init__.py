"""The measurements of `benchmarks/runtimes.py`: one module a runtime, each of which makes a `Loop`."""
