"""The training loop: steps, losses, history, and what lets a run stop and go on."""
