"""Inspection: each uploaded file is read by a confined process of its own, which never runs code from the file."""
