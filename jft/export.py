"""Write a model as a folder that Transformers and vLLM load: weights, tokenizer, configs, card.

    python -m jft.export RUN [EVAL ...] --out=DIR [--dtype=TYPE] [--adapters]

RUN is a workdir of jft.train, a Hugging Face folder or hub id, or a .gguf file; EVAL are workdirs
of jft.eval, whose scores go into the model card. The folder is read again, and has to give the same
scores, before it gets its name. Weights are float32, bfloat16 or float16, in files of 5 GB; by
default they have the type of a folder's, if all have one, and are float32 otherwise.
Adapters are merged into them; --adapters writes these alone, in float32, as PEFT loads them.
"""

from __future__ import annotations

from jft.runtime import cli


def main(dirs: list[str], out: str, dtype: str, adapters: bool) -> None:
    """Export a model."""
    from jft.exporting import folder  # here, so that --help need not wait for jax

    folder.export(dirs[0], dirs[1:], out, dtype, adapters)


if __name__ == "__main__":
    cli.run(
        main,
        __doc__,
        {"out": "", "dtype": ["own", "float32", "bfloat16", "float16"], "adapters": False},
        takes_config=False,
    )
