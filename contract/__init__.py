"""What every stage and Triton's image agree on: tensors, canonical image, samples, files. Imports no sibling."""
