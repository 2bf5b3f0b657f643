"""Model folders become denoisers. This is the only room of the compiler that knows the pipelines of diffusers."""
