"""Traces of requests and jobs (OpenTelemetry)."""
