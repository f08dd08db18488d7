"""The layers that folding left are found by the names of what is left."""

from __future__ import annotations

import pytest

from bninspect.batchnorm.folded_names import (
    ANY_PRODUCT,
    KERNEL,
    KERNEL_OFFSET,
    PRODUCT,
    SUM,
    folded_layer,
    layer_of_offset,
)


@pytest.mark.parametrize(
    ("name", "leaf", "layer"),
    [
        ("net/bn/batchnorm/mul_1", PRODUCT, "net/bn"),
        ("net/bn/batchnorm_2/mul_1:0", PRODUCT, "net/bn"),
        ("net/bn/batchnorm/mul", PRODUCT, None),
        ("net/bn/batchnorm/mul", ANY_PRODUCT, "net/bn"),
        ("net/bn/batchnorm/add_1", SUM, "net/bn"),
        ("net/bn/batchnorm/add", SUM, None),
        ("net/bn/FusedBatchNormV3", KERNEL, "net/bn"),
        ("net/bn/FusedBatchNormV3_1:0", KERNEL, "net/bn"),
        ("net/bn/FusedBatchNormV3/Offset", KERNEL, None),
        ("net/bn/FusedBatchNormV3/Offset", KERNEL_OFFSET, "net/bn"),
        ("batchnorm/add_1", SUM, "batchnorm/add_1"),
        ("net/my_batchnorm/add_1", SUM, None),
    ],
)
def test_a_layer_is_what_stands_before_its_operation(
    name: str, leaf: str, layer: str | None
) -> None:
    assert folded_layer(name, leaf) == layer


def test_any_of_several_leaves_counts() -> None:
    assert folded_layer("bn/batchnorm/add_1", PRODUCT, SUM) == "bn"


def test_an_offset_has_the_name_of_what_it_is_added_to() -> None:
    assert layer_of_offset("net/conv_bn_offset") == "net/conv"
    assert layer_of_offset("net/conv_offset") is None
