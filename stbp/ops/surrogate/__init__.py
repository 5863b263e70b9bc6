"""Surrogate curves that stand in for the derivative of a spike."""
