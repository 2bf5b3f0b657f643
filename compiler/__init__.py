"""The compiler: a request becomes a plan, a plan becomes a policy, a policy becomes an artifact.

request.py (what the user asks), compile_plan.py and target.py (resolved, nothing loaded), loaded_target.py (the model
and its journal), selection/ (search, arbitration, alignment), evaluation/ (the report), emit.py (the artifact).
"""
