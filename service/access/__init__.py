"""Access control: which client may make which request."""
