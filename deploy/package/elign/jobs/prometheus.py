"""A Prometheus beside a local Ray head: it finds what to scrape in the file that Ray keeps for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from elign.common.errors import ConfigError
from elign.common.storage import write_text
from elign.monitoring.alerts import prometheus_rules

SERVICE_DISCOVERY = "prom_metrics_service_discovery.json"
_SCRAPE_INTERVAL = "5s"


def prometheus_command(port: int) -> list[str]:
    """How to start it, but for its files; raises ConfigError where it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        raise ConfigError("there is no program prometheus on the PATH; install it, or leave it out")
    return [program, f"--web.listen-address=127.0.0.1:{port}"]


def write_prometheus_config(folder: Path, ray_temp_dir: Path) -> list[str]:
    """Write its configuration into ``folder``; returns the options that name it."""
    rules = folder / "elign-rules.yml"
    write_text(rules, yaml.safe_dump(prometheus_rules(), sort_keys=False))
    config = {
        "global": {"scrape_interval": _SCRAPE_INTERVAL, "evaluation_interval": _SCRAPE_INTERVAL},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "ray", "file_sd_configs": [{"files": [str(ray_temp_dir / SERVICE_DISCOVERY)]}]}
        ],
    }
    path = folder / "prometheus.yml"
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    return [f"--config.file={path}", f"--storage.tsdb.path={folder / 'prometheus-data'}"]
