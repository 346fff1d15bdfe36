"""Wrappers for vision-text environments."""

from __future__ import annotations

from gtr_envs.wrappers.curriculum import Curriculum
from gtr_envs.wrappers.history import History
from gtr_envs.wrappers.image_only import ImageOnly
from gtr_envs.wrappers.protocol import PROTOCOLS, Protocol
from gtr_envs.wrappers.record_episodes import RecordEpisodes
from gtr_envs.wrappers.text_action import TextAction

__all__ = ["PROTOCOLS", "Curriculum", "History", "ImageOnly", "Protocol", "RecordEpisodes", "TextAction"]
