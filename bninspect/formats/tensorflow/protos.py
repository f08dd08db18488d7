"""Declarations of the protocol-buffer messages that are read.

They are in a descriptor pool of their own, so they never clash with those of TensorFlow.
Field numbers and types are those of
tensorflow/core/protobuf/{trackable_object_graph,saved_object_graph}.proto,
tensorflow/python/keras/protobuf/saved_metadata.proto (whose SavedObject is SavedLayer here),
tensorflow/core/protobuf/{meta_graph,saved_model}.proto,
tensorflow/core/framework/{graph,node_def,attr_value,function,op_def}.proto,
tensorflow/core/util/saved_tensor_slice.proto and
tensorflow/core/framework/{tensor,tensor_shape,tensor_slice,versions}.proto; fields that nothing
here reads are left out, which protocol buffers allow. Enumerations are read as int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["DATA_TYPE", "DecodeError", "declare", "text_fields"]

_PACKAGE = "bninspect"
DATA_TYPE = "DataType"
_FIRST_OWN_FIELD = 1000  # of those that `reduced_graph` adds to messages
_FIELD = descriptor_pb2.FieldDescriptorProto

# message: (field name, number, type, repeated); a type that is no scalar is a message named here.
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "Dim": (("size", 1, "int64", False),),
    "TensorShape": (("dim", 2, "Dim", True), ("unknown_rank", 3, "bool", False)),
    "Versions": (("producer", 1, "int32", False), ("min_consumer", 2, "int32", False)),
    # Names are declared as bytes: nothing promises that they are UTF-8.
    "ObjectReference": (("node_id", 1, "int32", False), ("local_name", 2, "bytes", False)),
    "SerializedTensor": (
        ("name", 1, "bytes", False),
        ("full_name", 2, "bytes", False),
        ("checkpoint_key", 3, "bytes", False),
    ),
    "SlotVariableReference": (("slot_variable_node_id", 3, "int32", False),),
    "TrackableObject": (
        ("children", 1, "ObjectReference", True),
        ("attributes", 2, "SerializedTensor", True),
        ("slot_variables", 3, "SlotVariableReference", True),
    ),
    "TrackableObjectGraph": (("nodes", 1, "TrackableObject", True),),
    "SavedUserObject": (("metadata", 3, "bytes", False),),
    "SavedObject": (
        ("children", 1, "ObjectReference", True),
        ("user_object", 4, "SavedUserObject", False),
    ),
    "SavedObjectGraph": (("nodes", 1, "SavedObject", True),),
    "SavedLayer": (("node_path", 3, "bytes", False), ("metadata", 5, "bytes", False)),
    "SavedMetadata": (("nodes", 1, "SavedLayer", True),),
    # Graphs. A map is what it is on the wire, repeated pairs of key and value; the attributes of
    # nodes, which are many, stay encoded until they are needed.
    "SavedModel": (("meta_graphs", 2, "MetaGraph", True),),
    "MetaGraph": (
        ("graph_def", 2, "GraphDef", False),
        ("collection_def", 4, "CollectionPair", True),
    ),
    "CollectionPair": (("key", 1, "bytes", False), ("value", 2, "Collection", False)),
    "Collection": (("node_list", 1, "NodeNames", False),),
    "NodeNames": (("value", 1, "bytes", True),),
    "GraphDef": (("node", 1, "NodeDef", True), ("library", 2, "FunctionLibrary", False)),
    "FunctionLibrary": (("function", 1, "FunctionDef", True),),
    "FunctionDef": (
        ("signature", 1, "Signature", False),
        ("node_def", 3, "NodeDef", True),
        ("ret", 4, "NamePair", True),
        ("control_ret", 6, "NamePair", True),
    ),
    "Signature": (
        ("name", 1, "bytes", False),
        ("input_arg", 2, "Argument", True),
        ("output_arg", 3, "Argument", True),
    ),
    "Argument": (("name", 1, "bytes", False),),
    "NamePair": (("key", 1, "bytes", False), ("value", 2, "bytes", False)),
    "NodeDef": (
        ("name", 1, "bytes", False),
        ("op", 2, "bytes", False),
        ("input", 3, "bytes", True),
        ("attr", 5, "bytes", True),  # AttributePairs
    ),
    "AttributePair": (("key", 1, "bytes", False), ("value", 2, "bytes", False)),
    "AttributeValue": (
        ("list", 1, "AttributeList", False),
        ("f", 4, "float", False),
        ("b", 5, "bool", False),
        ("shape", 7, "TensorShape", False),
        ("tensor", 8, "ConstantTensor", False),
        ("func", 10, "FunctionName", False),
    ),
    "AttributeList": (("func", 9, "FunctionName", True),),
    "FunctionName": (("name", 1, "bytes", False),),
    "ConstantTensor": (
        ("dtype", 1, "int32", False),
        ("tensor_shape", 2, "TensorShape", False),
        ("tensor_content", 4, "bytes", False),
        ("float_val", 5, "float", True),
        ("double_val", 6, "double", True),
        ("int_val", 7, "int32", True),
        ("string_val", 8, "bytes", True),
        ("int64_val", 10, "int64", True),
        ("bool_val", 11, "bool", True),
        ("half_val", 13, "int32", True),
        # Of `reduced_graph`: which of these fields was left out, and where it is in the file.
        ("long_field", 1000, "int32", False),
        ("long_offset", 1001, "int64", False),
        ("long_size", 1002, "int64", False),
    ),
    "SavedTensorSlices": (
        ("meta", 1, "SavedTensorSliceMeta", False),
        ("data", 2, "SavedSlice", False),
    ),
    "SavedTensorSliceMeta": (
        ("tensor", 1, "SavedSliceMeta", True),
        ("versions", 2, "Versions", False),
    ),
    "SavedSliceMeta": (
        ("name", 1, "bytes", False),
        ("shape", 2, "bytes", False),  # a TensorShape; most are of variables that nobody reads
        ("type", 3, "int32", False),
        ("slice", 4, "bytes", True),  # TensorSlices
    ),
    "SavedSlice": (("data", 3, "Tensor", False),),
    # What a TensorProto holds of floating-point numbers comes as their bits: a double, which is
    # all that Python has, would not keep every bit of a NaN.
    "Tensor": (
        ("float_val", 5, "fixed32", True),
        ("double_val", 6, "fixed64", True),
        ("int_val", 7, "int32", True),
        ("int64_val", 10, "int64", True),
        ("bool_val", 11, "bool", True),
        ("half_val", 13, "int32", True),
        ("uint32_val", 16, "uint32", True),
        ("uint64_val", 17, "uint64", True),
    ),
}


# In the text form nothing stays encoded, and the type of a tensor has a name.
_IN_TEXT = {
    ("NodeDef", "attr"): "AttributePair",
    ("AttributePair", "value"): "AttributeValue",
    ("ConstantTensor", "dtype"): DATA_TYPE,
}


def declare(*names: str) -> tuple[Any, ...]:
    """Return the classes of the messages `names`; no others are declared, since that takes time."""
    # proto2, so that an absent field differs from a zero (an extent without a length).
    file = descriptor_pb2.FileDescriptorProto(
        name="bninspect.proto", package=_PACKAGE, syntax="proto2"
    )
    needed = [*names]
    for message_name in needed:
        message = file.message_type.add(name=message_name)
        for name, number, kind, repeated in _MESSAGES[message_name]:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            field = message.field.add(name=name, number=number, label=label)
            if kind in _MESSAGES:
                field.type = _FIELD.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
                if kind not in needed:
                    needed.append(kind)
            else:
                field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return tuple(
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in names
    )


@cache
def text_fields(message: str) -> Mapping[bytes, tuple[int, str]]:
    """Return number and kind of the fields of a message by their names in the text form.

    A kind is that of a scalar, `DATA_TYPE`, or a message that is declared here.
    """
    return {
        name.encode(): (number, _IN_TEXT.get((message, name), kind))
        for name, number, kind, _ in _MESSAGES[message]
        if number < _FIRST_OWN_FIELD
    }
