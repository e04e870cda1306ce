"""The fields of KubeRay's RayCluster and RayJob that the manifests use, strictly: an unknown one is an error.

Written after KubeRay's API reference; its own schema cannot be had where the tests run.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Template(Strict):
    """A pod template; its spec is checked by Kubernetes' schema."""

    spec: dict[str, Any]


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    labels: dict[str, str] = {}


class Head(Strict):
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    ray_start_params: dict[str, str]
    template: Template


class Workers(Strict):
    group_name: str
    replicas: int = Field(ge=0)
    min_replicas: int = Field(ge=0)
    max_replicas: int = Field(ge=1)
    ray_start_params: dict[str, str]
    template: Template

    @model_validator(mode="after")
    def _in_order(self) -> Workers:
        assert self.min_replicas <= self.replicas <= self.max_replicas
        return self


class AutoscalerOptions(Strict):
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"]
    idle_timeout_seconds: int = Field(gt=0)


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]


class ClusterSpec(Strict):
    ray_version: str
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions | None = None
    auth_options: AuthOptions
    head_group_spec: Head
    worker_group_specs: list[Workers] = Field(min_length=1)

    @property
    def templates(self) -> list[Template]:
        return [self.head_group_spec.template, *(group.template for group in self.worker_group_specs)]


class RayCluster(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec

    @property
    def cluster(self) -> ClusterSpec:
        return self.spec


class JobSpec(Strict):
    entrypoint: str
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int = Field(ge=0)
    submission_mode: Literal["K8sJobMode", "HTTPMode"]
    runtime_env_yaml: str = Field(alias="runtimeEnvYAML")
    ray_cluster_spec: ClusterSpec


class RayJob(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec

    @property
    def cluster(self) -> ClusterSpec:
        return self.spec.ray_cluster_spec
