"""Metrics of the service for Prometheus. docs/metrics.md describes each of them."""
