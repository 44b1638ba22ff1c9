"""Tell what fine-tuning did: each tuned model against its base, on the same items.

    python -m jft.report DIR [DIR ...] --out=DIR

Each DIR is the workdir of an evaluation (python -m jft.eval), or holds several. --out gets
report.html (open this one), report.md with its plots as PNG files, and comparisons.csv, cells.csv
and drift.csv; files of these names are replaced.
"""

from __future__ import annotations

from jft.errors import UserError, expand
from jft.runtime import cli, workdir


def main(dirs: list[str], out: str) -> None:
    """Compare the models scored in these folders, print a summary, and write the report."""
    from jft.reporting import content as content_lib
    from jft.reporting import render

    content = content_lib.gather(dirs)
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
    cli.run(main, __doc__, {"out": ""}, takes_config=False)
