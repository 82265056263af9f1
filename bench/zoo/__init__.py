"""Networks of many kinds, with tasks on which they are trained in about a minute on a CPU."""
