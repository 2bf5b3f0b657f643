"""Workers: processes of a Ray cluster that compute in place of the one that compiles."""
