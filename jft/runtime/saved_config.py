"""The config file behind `--config=DIR/config.json`: what a run was made with, to use again."""

from pathlib import Path

from jft import config as config_lib
from jft.runtime import workdir


def get_config(path: str) -> config_lib.Config:
    """The config that a program left in its workdir."""
    return workdir.read_config(Path(path).expanduser())
