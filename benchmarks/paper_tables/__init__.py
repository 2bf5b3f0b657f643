"""The tables and figures of arXiv 2606.13496, one a module: each measures rows, and writes them as a table."""
