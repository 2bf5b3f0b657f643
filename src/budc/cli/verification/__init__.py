"""What `budc verify` checks, layer by layer."""
