"""Experiments by name: registry, data sets, jobs, cross-validation, results."""
