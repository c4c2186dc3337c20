"""The TensorRT engine: source, options, build, proof of precision, manifest, runner."""
