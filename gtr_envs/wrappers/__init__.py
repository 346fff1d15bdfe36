"""Wrappers for vision-text environments."""

from __future__ import annotations

from gtr_envs.wrappers.text_action import TextAction

__all__ = ["TextAction"]
