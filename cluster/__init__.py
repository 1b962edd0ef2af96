"""Clusters: the local stack, Ray launcher files for clouds and on-premises machines, Kubernetes."""
