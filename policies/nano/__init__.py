"""The embedded nano models: their captions, clips, training recipe and the check that they learned.

Two siblings of the Wan2.1 pipeline (`wan2.1-nano`, `wan2.1-mini`) trained on procedural clips, so that a
policy can be searched, signed, verified and run on any machine without a model hub.

    python -m budc.policies.nano.train --out runs/nano        # trains both, resumes where it stopped
    python -m budc.policies.nano.check wan2.1-nano            # reads generated frames against captions
"""
