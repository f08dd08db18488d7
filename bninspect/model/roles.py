"""Roles of a BN layer's variables: gamma, beta, moving_mean, moving_variance."""

from __future__ import annotations

from typing import Literal

Role = Literal["gamma", "beta", "moving_mean", "moving_variance"]
ROLES: tuple[Role, ...] = ("gamma", "beta", "moving_mean", "moving_variance")
AFFINE: tuple[Role, ...] = ("gamma", "beta")
STATISTICS: tuple[Role, ...] = ("moving_mean", "moving_variance")
