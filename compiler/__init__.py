"""The compiler: declaration -> policy -> artifact. One pass a module, in this order:

load (model.py), calibrate (calibrate.py), search (study.py and search/), evaluate (evaluate.py), emit (emit.py).
"""
