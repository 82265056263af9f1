"""Attacks on the reader of uploaded files: each module makes malicious files, and shows that nothing comes of them."""
