"""INT8 by post-training quantization: ranges, graph, bias correction, gate."""
