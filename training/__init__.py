"""PyTorch: data, model, losses, the loop and its report.

Programs stand here: train, evaluate, report, release, profile. Their parts:

* data/     a module a dataset, each a program that makes a dataset folder
* batches/  packed faces to the batches of a step, augmented
* network/  AgeGenderNet, what feeds it, and the checkpoint file
* loop/     the trainer: steps, losses, history, and what lets a run stop and go on
"""

import os

# Before torch loads OpenMP: threads that wait busily for each other keep the others' cores from them. Where another
# process is busy, too, training then takes 1.0 to 1.5 times as long, instead of 1.8 to 3.4; alone it takes 5 to 10 %
# longer (docs/training.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
