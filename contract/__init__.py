"""What every stage and Triton's image agree on; imports no sibling, no torch, no matplotlib.

spec        tensors, labels, limits, ports: the authority
images      a picture to the canonical image
samples     datasets and which faces a protocol uses
repository  a Triton model repository: configurations, versions, files, an engine's manifest
gpu         which GPUs CUDA will use
headers     headers for a guarded server, from a file
files       atomic replacement
"""
