"""The closed-loop load generator, a process of its own."""
