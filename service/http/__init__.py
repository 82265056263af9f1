"""What all routes share: policies, errors, bodies, lists, negotiation, and downloads of byte sources."""
