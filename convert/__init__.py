"""Checkpoint -> ONNX -> engine, and the proof that every runtime answers the same."""
