"""The learning rate schedule and the optimizer, from optax."""

from __future__ import annotations

import optax

from jft import config as config_lib


def schedule(config: config_lib.Optim, steps: int) -> optax.Schedule:
    """Make the schedule of the learning rate, a function of the step s counted from 0.

    After a linear warm-up of `warmup_steps` from 0 to `lr` it falls to 0 at `steps`, or stays:
    without a warm-up the linear schedule is `lr * (1 - s / steps)`.
    """
    decay_steps = max(1, steps - config.warmup_steps)
    decay = {
        "linear": optax.linear_schedule(config.lr, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(config.lr, decay_steps),
        "constant": optax.constant_schedule(config.lr),
    }[config.schedule]
    warmup = optax.linear_schedule(0.0, config.lr, max(1, config.warmup_steps))
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def create(config: config_lib.Optim, steps: int) -> optax.GradientTransformation:
    """Make AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), after clipping if there is any."""
    adamw = optax.adamw(
        schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, adamw)
