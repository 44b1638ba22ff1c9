"""Tell what fine-tuning did: each tuned model against its base, on the same items.

    python -m jft.report DIR [DIR ...] --out=DIR [--margin=2] [--base=DIR]

Each DIR is the workdir of an evaluation (python -m jft.eval), or holds several. --out gets
report.html (open this one), report.md with its plots as PNG files, and comparisons.csv, cells.csv
and drift.csv; files of these names are replaced. --margin is the smallest change, in points, that
would matter to you: verdicts say whether a loss above it can be ruled out. Results of
lm-evaluation-harness with samples (--output_path, --log_samples) are read, too: the first DIR that
has some holds the base's, unless --base says another.
"""

from __future__ import annotations

from jft.errors import UserError, expand
from jft.runtime import cli, workdir


def main(dirs: list[str], out: str, margin: float, base: str) -> None:
    """Compare the models scored in these folders, print a summary, and write the report."""
    from jft.reporting import content as content_lib
    from jft.reporting import render

    if not 0 <= margin <= 100:
        raise UserError(f"--margin={margin:g}: must be points from 0 to 100")
    content = content_lib.gather(dirs, margin / 100, base)
    folder = expand(out)
    files = render.files(content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            workdir.write_bytes(folder / name, data)
    except OSError as error:
        raise UserError(f"--out={out}: cannot write there: {error.strerror}") from None
    render.show(content)
    print(f"The report is in {folder / 'report.html'}")


if __name__ == "__main__":
    cli.run(main, __doc__, {"out": "", "margin": 2.0, "base": ""}, takes_config=False)
