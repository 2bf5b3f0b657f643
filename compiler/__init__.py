"""The compiler: declaration -> policy -> artifact. One pass a module.

    load (model.py) -> calibrate (calibrate.py) -> search (search/, study.py) -> evaluate (evaluate.py) -> emit (emit.py)
"""
