"""Policies for networks without a pipeline: what `compile_policy` returns, kept in artifacts and run again."""
