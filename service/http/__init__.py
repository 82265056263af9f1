"""The parts that all routes share: policies, errors, bodies, lists, content negotiation, and downloads of byte sources."""
