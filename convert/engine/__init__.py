"""A TensorRT engine: built, proven and run. Its manifest is contract.repository's, which serving reads too.

source       what an ONNX model states of its tensors and its precision
typed_graph  the form of it that TensorRT parses
library      TensorRT or TensorRT-RTX, and what differs between them
options      what a build may be asked for
builder      every call of the library's builder
layer_types  the proof, from the parsed network, of what an engine will compute in
precision    the proof, from the inspector's account, of what a built one computes in
runner       an engine as predict(images)
"""
