"""Tell what fine-tuning did: each tuned model against its base, on the same items.

    python -m jft.report DIR [DIR ...] --out=DIR

Each DIR is the workdir of an evaluation (python -m jft.eval), or holds several. --out gets
report.html (open this one), report.md and comparisons.csv; files of these names are replaced.
"""

from __future__ import annotations

from pathlib import Path

from jft import cli, workdir
from jft.errors import UserError


def main(dirs: list[str], out: str) -> None:
    """Compare the models scored in these folders, print a summary, and write the report."""
    from jft.reporting import comparisons, html, markdown, terminal
    from jft.reporting.collect import collect
    from jft.reporting.compare import compare

    report = compare(collect(dirs))
    folder = Path(out).expanduser()
    files = {
        "report.html": html.render(report),
        "report.md": markdown.render(report),
        "comparisons.csv": comparisons.render(report),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            workdir.write_text(folder / name, text)
    except OSError as error:
        raise UserError(f"--out={out}: cannot write there: {error.strerror}") from None
    terminal.show(report)
    print(f"The report is in {folder / 'report.html'}")


if __name__ == "__main__":
    cli.run_on_dirs(main, __doc__)
