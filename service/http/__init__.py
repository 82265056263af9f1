"""What all routes share: errors, bodies, lists, negotiation."""
