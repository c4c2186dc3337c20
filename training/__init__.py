"""PyTorch: data, model, losses, the loop and its report."""
