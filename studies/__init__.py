"""Ready-made studies and claims, data only."""
