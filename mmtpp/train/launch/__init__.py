"""The driver of a training: check the settings, plan the samples, fit with Ray Train, record."""

from mmtpp.train.launch.planned_training import TrainingJob
from mmtpp.train.launch.training_jobs import finetune, pretrain, run_training_job

__all__ = ["TrainingJob", "finetune", "pretrain", "run_training_job"]
