"""The embedded nano models: their captions, clips and pictures, training recipes and the check that they learned.

Two siblings of the Wan2.1 pipeline (`wan2.1-nano`, `wan2.1-mini`) trained on procedural clips and one of FLUX.1
(`flux-nano`) trained on procedural pictures, so that a policy can be searched, signed, verified and run on any
machine without a model hub.

    python -m budc.policies.nano.training.wan --out runs/nano        # trains both Wan siblings, resumes
    python -m budc.policies.nano.training.flux --out runs/flux-nano  # trains the FLUX sibling
    python -m budc.policies.nano.evaluation.check flux-nano        # reads what is generated against captions
"""
