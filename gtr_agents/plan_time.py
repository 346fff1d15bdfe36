"""Estimates how long a run takes, by what the makers of a device say and what is assumed to be reached of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gtr_agents.plan_memory import GB, Load, dtype_bytes, episode_steps, n_playing, update_settings

if TYPE_CHECKING:
    from gtr_agents.config import RunConfig
    from gtr_agents.model_shape import ModelShape


class Device(NamedTuple):
    """A device as its maker describes it."""

    memory: float | None
    """Bytes; None for the machine's own."""
    flops: float
    """Multiplications and additions a second, dense bfloat16 (float32 on a CPU)."""
    bandwidth: float
    """Bytes a second from its memory."""


DEVICES = {
    "cpu": Device(None, 1.5e11, 2e10),
    "rtx-4060-8gb": Device(8e9, 3.0e13, 2.72e11),
    "rtx-4090-24gb": Device(24e9, 1.65e14, 1.01e12),
    "a100-80gb": Device(80e9, 3.12e14, 2.04e12),
    "h100-80gb": Device(80e9, 9.89e14, 3.35e12),
    "h200-141gb": Device(141e9, 9.89e14, 4.8e12),
}
"""Devices by name, from public data sheets; ``cpu`` is two x86 cores."""


def smallest_device(gigabytes: float | None) -> str:
    """Name the smallest GPU with at least this memory, the largest if there is none; the CPU for None."""
    if gigabytes is None:
        return "cpu"
    sizes = {name: device.memory for name, device in DEVICES.items() if device.memory is not None}
    enough = [name for name, memory in sizes.items() if memory >= gigabytes * GB]
    return min(enough, key=sizes.__getitem__) if enough else max(sizes, key=sizes.__getitem__)


class Speed(NamedTuple):
    """What is reached of a device."""

    arithmetic: float
    """Share of its arithmetic."""
    memory: float
    """Share of its bandwidth."""
    layer_seconds: float
    """Time to start the kernels of one layer for one token, which no batch makes shorter."""
    answer: float
    """Share of the longest answer that is written."""
    disk: float
    """Bytes a second of the disk."""
    number: float
    """Seconds of processing one number of a picture."""


FAST = Speed(0.5, 0.7, 3e-4, 0.3, 2e9, 1e-8)
"""The fast end of the range."""
SLOW = Speed(0.2, 0.4, 1.2e-3, 1.0, 3e8, 4e-8)
"""The slow end."""


def run_seconds(
    config: RunConfig, shape: ModelShape, load: Load, n: int, device: Device, speed: Speed
) -> tuple[float, float]:
    """Estimate the time of a run.

    Args:
        config: its configuration.
        shape: the model's sizes.
        load: what passes through it.
        n: steps of one training pass.
        device: where it runs.
        speed: what is reached of it.

    Returns:
        Seconds of the whole run, and of one step of an update without evaluations.
    """
    s = update_settings(config)
    answer = max(1.0, load.answer * speed.answer)
    flops = device.flops * speed.arithmetic
    size, adapted = dtype_bytes(config, shape), config.policy.lora is not None
    seeing = 2 * shape.vision * load.picture.patches
    reading = (2 * shape.language * load.prompt + seeing) / flops
    forward = (2 * shape.language * (load.prompt + answer) + seeing) / flops
    processing = speed.number * load.picture.numbers
    playing = n_playing(config)

    def play(count: int) -> float:
        """Seconds of one step of one of so many environments."""
        held = shape.language * size + count * load.prompt * shape.text.layers * 2 * shape.text.keys * size
        token = max(held / (device.bandwidth * speed.memory), 2 * shape.language * count / flops)
        return reading + answer * (token + shape.text.layers * speed.layer_seconds) / count + processing

    # A frozen base gets no gradient of its weights: forward and the inputs' gradient, instead of forward and both.
    passes = (2 if adapted else 3) + config.policy.gradient_checkpointing
    starting = shape.text.layers * speed.layer_seconds * passes / n
    train = s.epochs * (passes * forward + starting + (0.0 if config.policy.cache_inputs else processing))
    asked = config.guidance.name != "none"
    score = forward + shape.text.layers * speed.layer_seconds / 4 + processing if asked else 0.0
    if config.guidance.name == "thought_sft":
        score, train = play(playing), 2 * train
    r = config.rollout
    steps = r.hands * r.attempts * episode_steps(config) if r.hands else r.n_steps
    entries = shape.dense if adapted else shape.parameters
    merge = 36 * entries / (speed.disk if config.teacher.accumulators == "disk" else 5 * speed.disk)
    update = steps * (play(playing) + score + train) + merge
    measured = config.evaluation
    count = 5 * measured.episodes  # start and end, sampled and greedy, and the teacher
    if measured.every:
        count += 2 * (config.updates // measured.every) * measured.interim_episodes
    evaluations = count * episode_steps(config) * play(min(measured.n_envs, measured.episodes))
    start = 0.0 if config.sft is None else config.sft.steps * config.sft.batch_size * (passes * forward + processing)
    return config.updates * update + evaluations + start, update / steps
