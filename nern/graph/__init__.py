"""Networks as graphs: a network whose code is not known, as data that torch can interpret."""
