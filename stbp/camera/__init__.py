"""A simulated event camera, and how near it comes to a real one."""
