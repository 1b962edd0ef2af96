"""Types of KubeRay's resources, from its CRD reference (v1.6, ray.io/v1).

An unknown field is an error here; a Kubernetes API server would drop it silently.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Labels = dict[str, str]
Pod = dict[str, Any]  # validated with the schema of Kubernetes


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: str = ""
    generateName: str = ""
    labels: Labels = {}
    annotations: Labels = {}


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    idleTimeoutSeconds: Annotated[int, Field(ge=0)] = 60
    resources: dict[Literal["requests", "limits"], dict[str, str]] = {}
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []


class AuthOptions(Strict):
    mode: Literal["disabled", "token"] = "token"
    secretName: str = ""


class RedisCredential(Strict):
    value: str = ""
    valueFrom: dict[str, Any] = {}


class GcsFaultToleranceOptions(Strict):
    redisAddress: str
    redisUsername: RedisCredential | None = None
    redisPassword: RedisCredential | None = None
    externalStorageNamespace: str = ""


class HeadGroupSpec(Strict):
    template: Pod
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    enableIngress: bool = False
    rayStartParams: dict[str, str] = {}
    labels: Labels = {}
    resources: dict[str, str] = {}


class WorkerGroupSpec(Strict):
    groupName: str
    template: Pod
    minReplicas: int
    maxReplicas: int
    replicas: int = 0
    numOfHosts: int = 1
    idleTimeoutSeconds: int = 0
    rayStartParams: dict[str, str] = {}
    labels: Labels = {}
    resources: dict[str, str] = {}


class RayClusterSpec(Strict):
    headGroupSpec: HeadGroupSpec
    workerGroupSpecs: list[WorkerGroupSpec] = []
    rayVersion: str = ""
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    authOptions: AuthOptions | None = None
    gcsFaultToleranceOptions: GcsFaultToleranceOptions | None = None


class RayJobSpec(Strict):
    entrypoint: str
    clusterSelector: Labels = {}
    rayClusterSpec: RayClusterSpec | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"] = "K8sJobMode"
    backoffLimit: int = 0
    activeDeadlineSeconds: Annotated[int, Field(gt=0)] | None = None
    runtimeEnvYAML: str = ""
    entrypointNumCpus: float = 0.0
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: int = 0


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class UpgradeStrategy(Strict):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]


class RayServiceSpec(Strict):
    rayClusterConfig: RayClusterSpec
    serveConfigV2: str
    upgradeStrategy: UpgradeStrategy | None = None
    serviceUnhealthySecondThreshold: int = 900
    deploymentUnhealthySecondThreshold: int = 300
    excludeHeadPodFromServeSvc: bool = False


class RayService(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec
