"""Dataset folders: one module a dataset, and the packing that they share."""
