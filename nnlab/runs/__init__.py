"""Runs on disk: their configuration, folder, training loop, checkpoints and results."""

from nnlab.runs.checkpoints import restore, save
from nnlab.runs.environment import hardware, provenance, versions
from nnlab.runs.fit import Trained, best_accuracy, fit, least_loss
from nnlab.runs.hooks import Moment
from nnlab.runs.hosts import initialize
from nnlab.runs.loggers import csv_log, wandb_log
from nnlab.runs.run import COSINE, Record, Run
from nnlab.runs.run_folder import RunFolder

__all__ = [
    "COSINE",
    "Moment",
    "Record",
    "Run",
    "RunFolder",
    "Trained",
    "best_accuracy",
    "csv_log",
    "fit",
    "hardware",
    "initialize",
    "least_loss",
    "provenance",
    "restore",
    "save",
    "versions",
    "wandb_log",
]
