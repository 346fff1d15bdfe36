"""Decides what a player sees that cannot read: the picture alone."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from gtr_envs.rendering import Frame


class ImageOnly(gymnasium.ObservationWrapper[Frame, Any, Any], RecordConstructorArgs):
    """Leaves the text out of the observation.

    The observation space becomes a ``Box`` of uint8 pictures, height first, as the CNN policies of
    Stable-Baselines3 and other libraries without text spaces want it. Rewards, actions and info stay as they are.

    Example:
        >>> import gymnasium, gtr_envs
        >>> env = ImageOnly(gymnasium.make("Points24-v0", image_size=64))
        >>> env.reset(seed=0)[0].shape
        (64, 64, 3)
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Wrap an environment.

        Args:
            env: An environment whose observations are a ``Dict`` with a picture under ``image``.

        Raises:
            TypeError: If the observations have no picture.
        """
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        space = env.observation_space
        image = space.spaces.get("image") if isinstance(space, spaces.Dict) else None
        if not isinstance(image, spaces.Box):
            raise TypeError(f"expected a Dict observation with a picture under 'image', got the space {space}")
        self.observation_space = image

    def observation(self, observation: Any) -> Frame:
        """Take the picture out of an observation.

        Args:
            observation: The observation with its picture under ``image``.

        Returns:
            The picture, uint8 [H, W, 3].
        """
        picture: Frame = observation["image"]
        return picture
