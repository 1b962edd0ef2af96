"""Benchmarks of sweeps: the ablation of Delta and LoRA rank, Ray Tune's overhead, scaling laws."""
