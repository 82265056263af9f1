"""Helpers that several tests share: networks, images, rows of the tables, and servers that tests start by themselves."""
