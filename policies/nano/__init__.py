"""The embedded models: their procedural data, training recipes, and the check of what they generate.

`wan2.1-nano` and `wan2.1-mini` are small siblings of Wan2.1, trained on procedural clips; `flux-nano` is one of FLUX.1,
trained on procedural pictures. With them a policy can be searched, signed, verified and run on any machine without a
model hub.

    python -m budc.policies.nano.training.wan --out runs/nano        # trains both Wan siblings; resumes
    python -m budc.policies.nano.training.flux --out runs/flux-nano  # trains the FLUX sibling
    python -m budc.policies.nano.evaluation.check flux-nano          # compares what it generates with the captions
"""
