"""The procedural data of the embedded models: words, captions, pictures and clips."""
