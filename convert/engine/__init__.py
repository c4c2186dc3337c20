"""A TensorRT engine: built, proven and run. Its manifest is contract.repository's, which serving reads too.

source     what an ONNX model states, and the form of it that TensorRT parses
options    what a build may be asked for
builder    every call of TensorRT's builder
precision  the proof, from the inspector's account, of what an engine computes in
runner     an engine as predict(images)
"""
