"""jft fine-tunes language models in JAX and measures what the fine-tuning did to them."""

__version__ = "0.1.0"
