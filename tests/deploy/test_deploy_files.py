"""Cluster files are checked as far as that goes without a cluster: schemas, strict models, shell, names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from elign import __version__
from elign.monitoring.grafana import DATA_SOURCE_UID, FOLDER_UID
from tests.deploy.kuberay_model import ClusterSpec, RayCluster, RayJob

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES_VERSION = "1.33"
IMAGE = f"elign:{__version__}"


def _documents(name: str) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))


def _clusters() -> list[ClusterSpec]:
    (cluster,) = (d for d in _documents("kubernetes/cluster.yaml") if d["kind"] == "RayCluster")
    (job,) = _documents("kubernetes/job.yaml")
    return [RayCluster.model_validate(cluster).cluster, RayJob.model_validate(job).cluster]


def test_core_kinds_and_pods_follow_kubernetes_schema() -> None:
    (claim,) = (d for d in _documents("kubernetes/cluster.yaml") if d["apiVersion"] == "v1")
    kubernetes_validate.validate(claim, KUBERNETES_VERSION, strict=True)
    for cluster in _clusters():
        for template in cluster.templates:
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template.spec}
            kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)


def test_the_schema_would_notice_a_wrong_field() -> None:
    pod = _clusters()[0].templates[0].spec | {"container": []}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod},
            KUBERNETES_VERSION,
            strict=True,
        )


def test_ray_clusters_scale_want_a_token_and_keep_work_off_the_head() -> None:
    for cluster in _clusters():
        assert cluster.ray_version == ray.__version__
        assert cluster.enable_in_tree_autoscaling
        assert cluster.auth_options.mode == "token"
        assert cluster.head_group_spec.ray_start_params["num-cpus"] == "0"
        for template in cluster.templates:
            (container,) = template.spec["containers"]
            assert container["image"] == IMAGE
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports["metrics"] == 8080
            # Ray counts the limits as a node's resources
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_volumes_that_are_mounted_exist() -> None:
    (claim,) = (
        d["metadata"]["name"] for d in _documents("kubernetes/cluster.yaml") if d["apiVersion"] == "v1"
    )
    for cluster in _clusters():
        spec = cluster.head_group_spec.template.spec
        assert {m["name"] for c in spec["containers"] for m in c["volumeMounts"]} == {
            volume["name"] for volume in spec["volumes"]
        }
        assert {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"]} == {claim}


def test_the_launcher_file_follows_rays_own_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    (config,) = _documents("cloud/aws.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["docker"]["image"] == IMAGE
    assert (
        sum(t.get("max_workers", 0) for t in config["available_node_types"].values()) == config["max_workers"]
    )


def test_compose_mounts_files_that_exist_and_publishes_on_localhost_only() -> None:
    (compose,) = _documents("docker/compose.yaml")
    here = DEPLOY / "docker"
    for service in compose["services"].values():
        assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            exists = (here / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert exists, source
    assert (here / compose["services"]["head"]["build"]["context"]).resolve() == ROOT
    assert compose["services"]["head"]["image"] == IMAGE


def test_grafana_is_provisioned_with_the_names_that_the_code_uses() -> None:
    (sources,) = _documents("docker/grafana-data-source.yaml")
    (providers,) = _documents("docker/grafana-provisioning.yaml")
    assert [source["uid"] for source in sources["datasources"]] == [DATA_SOURCE_UID]
    assert [provider["folderUid"] for provider in providers["providers"]] == [FOLDER_UID]


@pytest.mark.parametrize(
    "script", ["deploy/slurm/train.sbatch", "deploy/quickstart", "deploy/examples/force_field.sh", ".ci/run"]
)
def test_shell_scripts_pass_shellcheck(script: str) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([program, "--shell=bash", ROOT / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_elign_commands_in_the_files_have_options_that_exist() -> None:
    """Every --option of ``elign train`` and ``elign submit`` in any of the files."""
    known = {"--preset", "--config", "--set", "--run-dir", "--resume", "--follow", "--address", "--python"}
    for path in DEPLOY.rglob("*"):
        if path.suffix not in (".yaml", ".sbatch", ".md"):
            continue
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"elign (?:train|submit) ([^\n`\"]*--run-dir[^\n`\"]*)", text):
            options = {word for word in shlex.split(line, comments=True) if word.startswith("--")}
            assert options <= known, f"{path.name}: {line}"


def test_the_image_has_the_version_of_the_package() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert f"-t {IMAGE} ." in text
    torch = re.search(r'"(torch[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert torch is not None
    assert torch[1] in text
