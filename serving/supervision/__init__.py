"""Keeping a server well while it runs, and after one that was killed: a watcher, its log, what it leaves behind."""
