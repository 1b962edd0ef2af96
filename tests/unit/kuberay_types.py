"""KubeRay's resources as its CRD reference describes them (v1.6, ray.io/v1).

An unknown field, which a Kubernetes API server would drop in silence, is an error here.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Labels = dict[str, str]
Pod = dict[str, Any]  # checked against Kubernetes' own schema


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: str = ""
    generateName: str = ""  # noqa: N815
    labels: Labels = {}
    annotations: Labels = {}


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] = "Default"  # noqa: N815
    idleTimeoutSeconds: Annotated[int, Field(ge=0)] = 60  # noqa: N815
    resources: dict[Literal["requests", "limits"], dict[str, str]] = {}
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []  # noqa: N815


class AuthOptions(Strict):
    mode: Literal["disabled", "token"] = "token"
    secretName: str = ""  # noqa: N815


class RedisCredential(Strict):
    value: str = ""
    valueFrom: dict[str, Any] = {}  # noqa: N815


class GcsFaultToleranceOptions(Strict):
    redisAddress: str  # noqa: N815
    redisUsername: RedisCredential | None = None  # noqa: N815
    redisPassword: RedisCredential | None = None  # noqa: N815
    externalStorageNamespace: str = ""  # noqa: N815


class HeadGroupSpec(Strict):
    template: Pod
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"  # noqa: N815
    enableIngress: bool = False  # noqa: N815
    rayStartParams: dict[str, str] = {}  # noqa: N815
    labels: Labels = {}
    resources: dict[str, str] = {}


class WorkerGroupSpec(Strict):
    groupName: str  # noqa: N815
    template: Pod
    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815
    replicas: int = 0
    numOfHosts: int = 1  # noqa: N815
    idleTimeoutSeconds: int = 0  # noqa: N815
    rayStartParams: dict[str, str] = {}  # noqa: N815
    labels: Labels = {}
    resources: dict[str, str] = {}


class RayClusterSpec(Strict):
    headGroupSpec: HeadGroupSpec  # noqa: N815
    workerGroupSpecs: list[WorkerGroupSpec] = []  # noqa: N815
    rayVersion: str = ""  # noqa: N815
    enableInTreeAutoscaling: bool = False  # noqa: N815
    autoscalerOptions: AutoscalerOptions | None = None  # noqa: N815
    authOptions: AuthOptions | None = None  # noqa: N815
    gcsFaultToleranceOptions: GcsFaultToleranceOptions | None = None  # noqa: N815


class RayJobSpec(Strict):
    entrypoint: str
    clusterSelector: Labels = {}  # noqa: N815
    rayClusterSpec: RayClusterSpec | None = None  # noqa: N815
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"] = "K8sJobMode"  # noqa: N815
    backoffLimit: int = 0  # noqa: N815
    activeDeadlineSeconds: Annotated[int, Field(gt=0)] | None = None  # noqa: N815
    runtimeEnvYAML: str = ""  # noqa: N815
    entrypointNumCpus: float = 0.0  # noqa: N815
    shutdownAfterJobFinishes: bool = False  # noqa: N815
    ttlSecondsAfterFinished: int = 0  # noqa: N815


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec
