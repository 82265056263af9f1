"""Webhooks: a client is told of the end of a job by a signed request."""
