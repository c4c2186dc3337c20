"""Load tests: what a running server can take, as its clients see it. Never imports torch."""
