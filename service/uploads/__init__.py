"""Uploads: files are received as streams, inspected, and stored as checkpoints and datasets."""
