"""The HTTP service: the application and all of its state."""
