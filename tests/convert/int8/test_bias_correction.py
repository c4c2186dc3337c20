import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper

from contract.spec import IMAGE, Images
from convert.int8.bias_correction import bias_corrected, first_dense_layer
from tests.convert.conftest import Models


def copy_of(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def mean_features(model: ModelProto, faces: Images) -> np.ndarray:
    """What the first dense layer gives on average."""
    watched, name = copy_of(model), first_dense_layer(model).output[0]
    watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return onnxruntime.InferenceSession(watched.SerializeToString()).run([name], {IMAGE.name: faces})[0].mean(axis=0)


def test_a_shift_of_the_mean_is_taken_off_in_that_layer_alone(models: Models, noise: Images) -> None:
    fp32 = onnx.load(models.onnx)
    shifted = copy_of(fp32)
    weights = next(tensor for tensor in shifted.graph.initializer if len(tensor.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.1), weights.name))
    corrected = bias_corrected(shifted, fp32, noise)
    wanted = mean_features(fp32, noise)
    assert np.abs(mean_features(shifted, noise) - wanted).max() > 1e-2
    np.testing.assert_allclose(mean_features(corrected, noise), wanted, atol=1e-4)
    assert corrected.graph.initializer[:-1] == shifted.graph.initializer[:]
    [changed] = [n for n, m in zip(corrected.graph.node, shifted.graph.node, strict=True) if n != m]
    assert changed.output == first_dense_layer(fp32).output
