"""Names of TensorFlow's operations, grouped by their effect on a variable or its value.

The operations are declared in tensorflow/core/ops: array_ops.cc, control_flow_ops.cc,
data_flow_ops.cc, functional_ops.cc, io_ops.cc, math_ops.cc, nn_ops.cc, resource_variable_ops.cc,
state_ops.cc and training_ops.cc.
"""

from __future__ import annotations

from bninspect.model.graph import STORED_VARIABLES, WEIGHTS

VARIABLES = {*STORED_VARIABLES, WEIGHTS}
READS = "ReadVariableOp"
PLACEHOLDERS = {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"}
CONSTANT = "Const"

# Writes to a variable. An assignment to a reference returns the variable.
_RELATIVE_TO_REFERENCE = {"AssignSub", "AssignAdd"}
RELATIVE_ASSIGNS = _RELATIVE_TO_REFERENCE | {"AssignSubVariableOp", "AssignAddVariableOp"}
ASSIGNS = {"Assign", "AssignVariableOp"} | RELATIVE_ASSIGNS
# Optimizers: ApplyMomentum, ResourceApplyAdam, SparseApplyFtrl, …
APPLIES = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")
# Writes whose values are not followed.
OTHER_WRITES: tuple[str, ...] = (
    *("Scatter", "ResourceScatter", "StridedSliceAssign", "ResourceStridedSliceAssign"),
    *("CountUpTo", "ResourceCountUpTo", *APPLIES),
)
# Stores other than variables: gradients that are accumulated, a queue.
STORES = ("Accumulator", "SparseAccumulator", "ResourceAccumulator", "QueueEnqueue")
RESTORES = {"Restore", "RestoreSlice", "RestoreV2"}

# Control flow: switches with the place of the predicate among their inputs; the frames of loops.
SWITCHES = {"Switch": 1, "RefSwitch": 1}
SELECTS = {"Select": 0, "SelectV2": 0}
MERGES = {"Merge", "RefMerge"}
BRANCHES = {"If": 0, "StatelessIf": 0, "Case": 0, "StatelessCase": 0}
LOOP_PREDICATE = "LoopCond"
LOOPS = {"While", "StatelessWhile", "For"}
ENTERS = {"Enter", "RefEnter"}
CALLS = {
    *("PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall", "RemoteCall"),
    *("SymbolicGradient", *BRANCHES, *LOOPS),
}
FUNCTION_ATTRIBUTES = ("f", "then_branch", "else_branch", "cond", "body", "branches")
PREDICATES = SWITCHES | SELECTS | BRANCHES
# A value that depends on a condition.
CHOICES = MERGES | set(SELECTS) | set(BRANCHES)

# Operations whose first input, a variable or its value, is their output.
_IDENTITIES = {"Identity", "RefIdentity", READS, *SWITCHES, *ENTERS}
PASSES = _IDENTITIES | {"Assign"} | _RELATIVE_TO_REFERENCE
# Those whose output holds the same numbers as their first input.
RESHAPES = {"Cast", "Reshape", "Squeeze"}
SAME_VALUES = _IDENTITIES | RESHAPES

# The arithmetic of an update, up to the statistics of the batch.
SUMS = {"Add", "AddV2"}
DIFFERENCES = {"Sub"}
PRODUCTS = {"Mul"}
ARITHMETIC = SUMS | DIFFERENCES | PRODUCTS
# The arithmetic of a predicate.
COMPARISONS = {"Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"}
LOGIC = COMPARISONS | ARITHMETIC | {"LogicalNot", "LogicalAnd", "LogicalOr", "All", "Any"}
LOGIC |= {"Mod", "FloorMod", "FloorDiv", "Pack"}

# The ends of a dense layer or a convolution with a bias, and what reshapes it for a fused kernel.
BIAS_ADDS = {"BiasAdd", "BiasAddV1"} | SUMS
EXPANSIONS = {"ExpandDims", "SpaceToBatchND", "BatchToSpaceND", "Transpose"}

# The last one is that of an optimized graph, with an activation
# (tensorflow/core/grappler/optimizers/remapper.cc).
FUSED_BATCH_NORMS = {
    "FusedBatchNorm",
    "FusedBatchNormV2",
    "FusedBatchNormV3",
    "_FusedBatchNormEx",
}
# The fused kernel that can average by itself, by its attribute exponential_avg_factor.
AVERAGING_BATCH_NORMS = {"FusedBatchNormV3"}

# Origins of values that are not new statistics: a constant or random initial value, a restored
# checkpoint, a placeholder by which Keras sets weights, a copy of another variable.
NO_UPDATES = VARIABLES | RESTORES | {CONSTANT, "Fill", "ZerosLike", "OnesLike"} | PLACEHOLDERS
