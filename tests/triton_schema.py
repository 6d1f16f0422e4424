"""Triton's published schema of config.pbtxt, as far as a classifier can use it, for a parser to hold files against.

Names, numbers and types are those of `protobuf/model_config.proto` in github.com/triton-inference-server/common, and
were compared with the descriptor that `tritonclient` 2.73.0 carries. Left out is what a classifier has no use for:
ensembles, sequences, ragged batches, rate limits, custom operators, what only the TensorRT backend reads. A file that
uses them does not parse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"

_TYPES = "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16"
ENUMS: Mapping[str, Sequence[str]] = {
    "DataType": [f"TYPE_{name}" for name in _TYPES.split()],
    "ModelInput.Format": ["FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"],
    "ModelInstanceGroup.Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"],
    "ModelOptimizationPolicy.ModelPriority": ["PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"],
    "ModelQueuePolicy.TimeoutAction": ["REJECT", "DELAY"],
}
"""Name of an enum to its values, which count from 0."""

_ACCELERATORS = "ModelOptimizationPolicy.ExecutionAccelerators"
MESSAGES: Mapping[str, str] = {
    "ModelTensorReshape": "int64* shape 1",
    "ModelInput": """
        string name 1, DataType data_type 2, ModelInput.Format format 3, int64* dims 4, ModelTensorReshape reshape 5,
        bool is_shape_tensor 6, bool allow_ragged_batch 7, bool optional 8""",
    "ModelOutput": """
        string name 1, DataType data_type 2, int64* dims 3, string label_filename 4, ModelTensorReshape reshape 5,
        bool is_shape_tensor 6""",
    "ModelInstanceGroup": """
        string name 1, int32 count 2, int32* gpus 3, ModelInstanceGroup.Kind kind 4, string* profile 5,
        bool passive 7, string host_policy 9""",
    "ModelVersionPolicy.Latest": "uint32 num_versions 1",
    "ModelVersionPolicy.All": "",
    "ModelVersionPolicy.Specific": "int64* versions 1",
    "ModelVersionPolicy": """
        ModelVersionPolicy.Latest latest 1 policy_choice, ModelVersionPolicy.All all 2 policy_choice,
        ModelVersionPolicy.Specific specific 3 policy_choice""",
    "ModelOptimizationPolicy.Graph": "int32 level 1",
    f"{_ACCELERATORS}.Accelerator": "string name 1, map<string> parameters 2",
    _ACCELERATORS: f"""
        {_ACCELERATORS}.Accelerator* gpu_execution_accelerator 1,
        {_ACCELERATORS}.Accelerator* cpu_execution_accelerator 2""",
    "ModelOptimizationPolicy.PinnedMemoryBuffer": "bool enable 1",
    "ModelOptimizationPolicy": f"""
        ModelOptimizationPolicy.Graph graph 1, ModelOptimizationPolicy.ModelPriority priority 2,
        {_ACCELERATORS} execution_accelerators 4,
        ModelOptimizationPolicy.PinnedMemoryBuffer input_pinned_memory 5,
        ModelOptimizationPolicy.PinnedMemoryBuffer output_pinned_memory 6,
        uint32 gather_kernel_buffer_threshold 7, bool eager_batching 8""",
    "ModelQueuePolicy": """
        ModelQueuePolicy.TimeoutAction timeout_action 1, uint64 default_timeout_microseconds 2,
        bool allow_timeout_override 3, uint32 max_queue_size 4""",
    "ModelDynamicBatching": """
        int32* preferred_batch_size 1, uint64 max_queue_delay_microseconds 2, bool preserve_ordering 3,
        uint64 priority_levels 4, uint64 default_priority_level 5, ModelQueuePolicy default_queue_policy 6""",
    "ModelParameter": "string string_value 1",
    "ModelWarmup.Input": """
        DataType data_type 1, int64* dims 2, bool zero_data 3 input_data_type, bool random_data 4 input_data_type,
        string input_data_file 5 input_data_type""",
    "ModelWarmup": "string name 1, uint32 batch_size 2, map<ModelWarmup.Input> inputs 3, uint32 count 4",
    "ModelResponseCache": "bool enable 1",
    "ModelConfig": """
        string name 1, string platform 2, ModelVersionPolicy version_policy 3, int32 max_batch_size 4,
        ModelInput* input 5, ModelOutput* output 6, ModelInstanceGroup* instance_group 7,
        string default_model_filename 8, map<string> cc_model_filenames 9, map<string> metric_tags 10,
        ModelDynamicBatching dynamic_batching 11 scheduling_choice, ModelOptimizationPolicy optimization 12,
        map<ModelParameter> parameters 14, ModelWarmup* model_warmup 16, string backend 17,
        ModelResponseCache response_cache 24""",
}
"""Name of a message to its fields: type (`*` for repeated, `map<T>` from strings to T), name, number, oneof."""


def parse(text: str) -> Message:
    """The `ModelConfig` that `text` describes; text_format.ParseError where the schema has no such field or type."""
    return text_format.Parse(text, _model_config()())


@cache
def _model_config() -> type[Message]:
    pool = DescriptorPool()
    pool.Add(schema())
    return GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.ModelConfig"))


def schema() -> FileDescriptorProto:
    file = FileDescriptorProto(name="model_config.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for name in sorted(MESSAGES, key=lambda name: name.count(".")):
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
    for name, values in ENUMS.items():
        outer, _, inner = name.rpartition(".")
        _number((made[outer].enum_type if outer else file.enum_type).add(name=inner), values)
    for name, fields in MESSAGES.items():
        for field in filter(None, (field.strip() for field in fields.split(","))):
            _describe(made[name], name, *field.split())
    return file


def _number(enum: EnumDescriptorProto, values: Sequence[str]) -> None:
    for number, value in enumerate(values):
        enum.value.add(name=value, number=number)


def _describe(message: DescriptorProto, path: str, kind: str, name: str, number: str, oneof: str = "") -> None:
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        kind = f"{path}.{_entry(message, name, kind[4:-1])}*"
    if kind.endswith("*"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    _type(field, kind.rstrip("*"))
    if oneof:
        if oneof not in (known := [one.name for one in message.oneof_decl]):
            message.oneof_decl.add(name=oneof)
            known.append(oneof)
        field.oneof_index = known.index(oneof)


def _entry(message: DescriptorProto, name: str, value: str) -> str:
    """A map is, to protobuf, a repeated message of this shape and name."""
    entry = message.nested_type.add(name="".join(word.capitalize() for word in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _type(entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL), "string")
    _type(entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL), value)
    return entry.name


def _type(field: FieldDescriptorProto, kind: str) -> None:
    scalar = {name.removeprefix("TYPE_").lower(): number for name, number in FieldDescriptorProto.Type.items()}
    if kind in scalar:
        field.type = scalar[kind]
        return
    field.type = FieldDescriptorProto.TYPE_ENUM if kind in ENUMS else FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{kind}"
