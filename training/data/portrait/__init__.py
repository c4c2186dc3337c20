"""A face drawn from numbers: appearance (what it looks like), canvas (how it is drawn), head, features and hair."""
