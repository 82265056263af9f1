"""Calling networks."""
