"""Checks whether an embedded model generates what its captions say."""
