"""PyTorch: data, model, losses, the loop and its report.

Programs stand here: train, evaluate, report, release, profile. Their parts:

* data/     a module a dataset, each a program that makes a dataset folder
* batches/  packed faces to the batches of a step, augmented
* network/  AgeGenderNet, what feeds it, and the checkpoint file
* loop/     the trainer: steps, losses, history, and what lets a run stop and go on
"""
