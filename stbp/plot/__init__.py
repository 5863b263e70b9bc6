"""Pictures of networks, runs and recordings."""
