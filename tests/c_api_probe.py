"""Runs a signature of a SavedModel with TensorFlow's C API, in a process without Keras and without Python TensorFlow.

    python c_api_probe.py LIBRARY SAVED_MODEL INPUT.npy INPUT_TENSOR OUTPUT.npy OUTPUT_TENSOR

Input and output are float32; for an input tensor of strings, INPUT.npy holds bytes (dtype S). Servers and bindings in
C, C++, Go or Rust load a SavedModel in this way.
"""

import ctypes
import sys

import numpy as np

FLOAT, STRING = 1, 7  # TF_DataType


class Output(ctypes.Structure):
    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


class TString(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * 24)]


def main() -> None:
    library, directory, input_file, input_name, output_file, output_name = sys.argv[1:]
    tf = ctypes.CDLL(library)
    for name in (
        *("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel", "TF_AllocateTensor"),
        *("TF_TensorData", "TF_GraphOperationByName", "TF_Message"),
    ):
        getattr(tf, name).restype = ctypes.c_void_p
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_TensorByteSize.restype = ctypes.c_size_t
    tf.TF_Dim.restype = ctypes.c_int64
    status = ctypes.c_void_p(tf.TF_NewStatus())

    def checked() -> None:
        if tf.TF_GetCode(status):
            sys.exit(tf.TF_Message(status).decode())

    graph = ctypes.c_void_p(tf.TF_NewGraph())
    options = ctypes.c_void_p(tf.TF_NewSessionOptions())
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = ctypes.c_void_p(
        tf.TF_LoadSessionFromSavedModel(options, None, directory.encode(), tags, 1, graph, None, status)
    )
    checked()

    def place(tensor_name: str) -> Output:
        operation, _, index = tensor_name.partition(":")
        found = tf.TF_GraphOperationByName(graph, operation.encode())
        if not found:
            sys.exit(f"there is no operation {operation}")
        return Output(found, int(index or 0))

    values = np.load(input_file)
    dims = (ctypes.c_int64 * values.ndim)(*values.shape)
    if values.dtype == np.float32:
        tensor = ctypes.c_void_p(tf.TF_AllocateTensor(FLOAT, dims, values.ndim, ctypes.c_size_t(values.nbytes)))
        ctypes.memmove(tf.TF_TensorData(tensor), values.ctypes.data, values.nbytes)
    else:
        size = ctypes.sizeof(TString)
        tensor = ctypes.c_void_p(tf.TF_AllocateTensor(STRING, dims, 1, ctypes.c_size_t(size * len(values))))
        start = tf.TF_TensorData(tensor)
        for place_in_batch, one in enumerate(values):
            string = ctypes.c_void_p(start + place_in_batch * size)
            tf.TF_StringInit(string)
            tf.TF_StringCopy(string, ctypes.c_char_p(bytes(one)), ctypes.c_size_t(len(one)))

    result = ctypes.c_void_p()
    inputs, outputs = (Output * 1)(place(input_name)), (Output * 1)(place(output_name))
    tensors = (ctypes.c_void_p * 1)(tensor)
    tf.TF_SessionRun(session, None, inputs, tensors, 1, outputs, ctypes.byref(result), 1, None, 0, None, status)
    checked()
    shape = [tf.TF_Dim(result, axis) for axis in range(tf.TF_NumDims(result))]
    data = ctypes.string_at(tf.TF_TensorData(result), tf.TF_TensorByteSize(result))
    np.save(output_file, np.frombuffer(data, np.float32).reshape(shape))
    if any(name.split(".")[0] in ("tensorflow", "keras") for name in sys.modules):
        sys.exit("Python TensorFlow was imported: this shows nothing")


if __name__ == "__main__":
    main()
