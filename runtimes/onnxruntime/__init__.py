"""Exported models under a policy, from the prompt to frames, without torch."""
