"""The messages of the Open Inference Protocol over gRPC, made from a table instead of generated code.

Names, numbers and types are those of `grpc_predict_v2.proto` in github.com/kserve/open-inference-protocol and, for the
configuration, of `model_config.proto` in github.com/triton-inference-server/common. A field that is missing here is one
that this server does not use; protobuf passes over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_NAMED = "string name 1, string version 2"
_TENSOR = "string name 1, string datatype 2, int64* shape 3"
_PARAMETERS = "map<InferParameter> parameters"
MESSAGES: Mapping[str, str] = {
    "InferParameter": """
        bool bool_param 1 parameter_choice, int64 int64_param 2 parameter_choice,
        string string_param 3 parameter_choice, double double_param 4 parameter_choice,
        uint64 uint64_param 5 parameter_choice""",
    "InferTensorContents": """
        bool* bool_contents 1, int32* int_contents 2, int64* int64_contents 3, uint32* uint_contents 4,
        uint64* uint64_contents 5, float* fp32_contents 6, double* fp64_contents 7, bytes* bytes_contents 8""",
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1, string version 2, string* extensions 3",
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": """
        string name 1, string* versions 2, string platform 3, ModelMetadataResponse.TensorMetadata* inputs 4,
        ModelMetadataResponse.TensorMetadata* outputs 5""",
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": f"""
        string model_name 1, string model_version 2, string id 3, {_PARAMETERS} 4,
        ModelInferRequest.InferInputTensor* inputs 5, ModelInferRequest.InferRequestedOutputTensor* outputs 6,
        bytes* raw_input_contents 7""",
    "ModelInferRequest.InferInputTensor": f"{_TENSOR}, {_PARAMETERS} 4, InferTensorContents contents 5",
    "ModelInferRequest.InferRequestedOutputTensor": f"string name 1, {_PARAMETERS} 2",
    "ModelInferResponse": f"""
        string model_name 1, string model_version 2, string id 3, {_PARAMETERS} 4,
        ModelInferResponse.InferOutputTensor* outputs 5, bytes* raw_output_contents 6""",
    "ModelInferResponse.InferOutputTensor": f"{_TENSOR}, {_PARAMETERS} 4, InferTensorContents contents 5",
    "ModelConfigRequest": _NAMED,
    "ModelConfigResponse": "ModelConfig config 1",
    "ModelConfig": """
        string name 1, string platform 2, int32 max_batch_size 4, ModelInput* input 5, ModelOutput* output 6,
        map<ModelParameter> parameters 14, string backend 17""",
    "ModelInput": "string name 1, int32 data_type 2, int64* dims 4",
    "ModelOutput": "string name 1, int32 data_type 2, int64* dims 3",
    "ModelParameter": "string string_value 1",
}
"""Each message with its fields: type (`*`: repeated), name, number, and the group of which one at most is set."""
DATA_TYPES: Mapping[str, int] = {"TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_FP32": 11}
"""Numbers of the enum `DataType`."""


@cache
def messages() -> Mapping[str, Any]:
    """The classes of all messages that are not inside another one."""
    pool = DescriptorPool()
    pool.Add(_schema())
    names = [name for name in MESSAGES if "." not in name]
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}


def _schema() -> FileDescriptorProto:
    file = FileDescriptorProto(name="toolkit_serving.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        for field in filter(None, (field.strip() for field in fields.split(","))):
            _describe(made[name], name, *field.split())
    return file


def _describe(message: DescriptorProto, path: str, kind: str, name: str, number: str, choice: str = "") -> None:
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        kind = f"{path}.{_entry(message, name, kind[4:-1])}*"
    if kind.endswith("*"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    _type(field, kind.rstrip("*"))
    if choice:
        if not message.oneof_decl:
            message.oneof_decl.add(name=choice)
        field.oneof_index = 0


def _entry(message: DescriptorProto, name: str, value: str) -> str:
    """A map is, to protobuf, a repeated message of this shape and name."""
    entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    _type(entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL), "string")
    _type(entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL), value)
    return str(entry.name)


def _type(field: FieldDescriptorProto, kind: str) -> None:
    scalar = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}", None)
    if scalar is None:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = scalar
