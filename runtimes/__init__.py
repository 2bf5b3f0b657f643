"""Runtimes: an artifact interpreted, step by step, in the framework that runs the model."""
