"""The recipes by which the embedded models are trained."""
