"""May this artifact run here: who signed it, and do the settings match."""
