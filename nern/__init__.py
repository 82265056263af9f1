"""Neural representations of convolutional networks: the method, as a library."""
