"""Neural representations of convolutional networks: the method as a library. docs/method.md describes it."""
