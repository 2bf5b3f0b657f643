"""Model folders become denoisers. The only room of the compiler that knows diffusers' pipelines."""
