"""diffusers pipelines under a policy."""
