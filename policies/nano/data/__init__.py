"""The procedural data of the embedded models: captions, clips and pictures."""
