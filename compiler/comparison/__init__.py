"""Rivals: other methods of step caching, fitted to the same model and run at the same number of evaluations.

A method is fitted on calibration prompts (`budc.compiler.comparison.methods`). What it found is a policy that is the
same for all prompts, or a rule that decides while a sample is generated.
"""
