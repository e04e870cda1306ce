"""Watching runs: metrics through Ray to Prometheus, dashboards for Grafana, a live terminal view."""
