"""The driver of a training: check the settings, plan the samples, fit with Ray Train."""

from mmtpp.train.launch.training_jobs import finetune, pretrain

__all__ = ["finetune", "pretrain"]
